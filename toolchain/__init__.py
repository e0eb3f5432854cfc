"""Obtains programs: from PATH, by download, from package registries, or built from pinned sources.

It needs only Python's standard library, because it makes the virtual environment. Its results are artifacts
in a cache (`toolchain.cache`), which the next run uses again.
"""
