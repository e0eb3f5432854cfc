"""A stand-in for Pulumi's official `command` plugin, for machines that cannot reach its download host.

It serves the resources and the function of `pulumi_command` 1.2.1 with the official plugin's semantics; the
cases in `cases/` state them, and `run_cases.py` runs the same cases against either plugin. What differs on
purpose is in the README.
"""

VERSION = "1.2.1"
