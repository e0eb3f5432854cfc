"""The life of a checkout: setup, its stack and passphrase, the stack's outputs, what a killed run has left.

`python3 -m workspace` needs only Python's standard library, because it makes the virtual environment.
"""

import sys

# This comes first, because an older Python cannot parse the other modules.
if sys.version_info < (3, 11):  # noqa: UP036 (an older Python runs this)
    version = ".".join(map(str, sys.version_info[:2]))
    sys.exit(
        f"workspace: {sys.executable} is Python {version}, and the lab needs 3.11 or newer, as in Debian 12 "
        "and Ubuntu 24.04. Install one beside it (Ubuntu 22.04: apt-get install python3.11), and name it: "
        "make up PYTHON=python3.11"
    )
