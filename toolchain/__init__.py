"""How the programs that are not Python packages are obtained.

Needs only Python's standard library, because it runs before there is a virtual environment. What it makes
lands in the cache completely or not at all; a second run finds it there.
"""
