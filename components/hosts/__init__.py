"""Hosts: the machines of the lab, and how each of them is reached."""
