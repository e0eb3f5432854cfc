"""Explains a running lab: facts of hosts, findings, and traces of packets.

Readiness gates and the command `lab` use it. It imports neither `lab` nor Pulumi, so that `lab` starts
quickly.
"""
