"""Readiness gates: waits for a condition on a host after a change."""
