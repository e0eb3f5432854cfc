"""Firewall policies: their config, resolution, compilation and evaluation, and the guard. Pure."""
