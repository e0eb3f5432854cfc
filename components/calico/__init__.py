"""CalicoNetwork: one routed container network on all hosts."""
