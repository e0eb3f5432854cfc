"""The tools of the lab that are not Python packages, and the environment around them: `python3 -m toolchain`.

Owes: needs nothing but Python's standard library, since it runs before there is a virtual environment;
whatever is made lands in the cache whole or not at all; a second run finds everything there.
"""
