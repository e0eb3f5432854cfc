"""The operator's command `lab`: reads the stack's outputs, asks the hosts, reports. It changes no host."""
