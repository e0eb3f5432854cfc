"""Waits with a condition and a bound."""

import time
from collections.abc import Callable

from bench.guests import GuestError

RETRIED = (AssertionError, GuestError, OSError)
"""The errors of `requests`, `ssl` and sockets are OSErrors."""
TRIES = 3
"""A check that takes long on a busy machine is tried as often, whatever the time allowed."""


def eventually(check: Callable[[], None], seconds: float, pause: float = 0.5) -> None:
    """Run a check until it holds; after the time allowed, its own error is the failure."""
    deadline = time.monotonic() + seconds
    tries = 0
    while True:
        try:
            check()
        except RETRIED:
            tries += 1
            if time.monotonic() > deadline and tries >= TRIES:
                raise
            time.sleep(pause)
        else:
            return
