"""The tools of the lab that are not Python packages, and the environment around them: `python3 -m toolchain`.

Owes: needs nothing but Python's standard library, since it runs before there is a virtual environment;
whatever is made lands in the cache whole or not at all; a second run finds everything there.
"""

import sys

# Before anything is imported that an older Python cannot read.
if sys.version_info < (3, 11):  # noqa: UP036 (an older one gets as far as this)
    version = ".".join(map(str, sys.version_info[:2]))
    sys.exit(
        f"toolchain: {sys.executable} is Python {version}, and the lab needs 3.11 or newer, as in Debian 12 "
        "and Ubuntu 24.04. Install one beside it (Ubuntu 22.04: apt-get install python3.11), and name it: "
        "make up PYTHON=python3.11"
    )
