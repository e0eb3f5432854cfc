"""The life of a checkout: its tools, stack, passphrase and outputs, and what a killed run leaves behind.

`python3 -m workspace` runs before there is a virtual environment, so it needs only Python's standard library.
"""

import sys

# Before anything is imported that an older Python cannot read.
if sys.version_info < (3, 11):  # noqa: UP036 (an older one gets as far as this)
    version = ".".join(map(str, sys.version_info[:2]))
    sys.exit(
        f"workspace: {sys.executable} is Python {version}, and the lab needs 3.11 or newer, as in Debian 12 "
        "and Ubuntu 24.04. Install one beside it (Ubuntu 22.04: apt-get install python3.11), and name it: "
        "make up PYTHON=python3.11"
    )
