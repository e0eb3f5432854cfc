"""Waits with a condition and a bound."""

import time
from collections.abc import Callable


def eventually(check: Callable[[], None], seconds: float, pause: float = 0.5) -> None:
    """Run a check until it holds; after the time allowed, its own AssertionError is the failure."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(pause)
        else:
            return
