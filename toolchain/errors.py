"""Errors that end a run of the toolchain, and the event that stops its parts."""

import threading

STOP = threading.Event()
"""Set when a lane has failed or the operator has interrupted the run; all that waits then stops."""


class ToolchainError(Exception):
    """A step has failed; the message names the cause and the next step."""


class CommandError(ToolchainError):
    """A command failed, or did not end in time."""

    def __init__(self, message: str, last: str) -> None:
        super().__init__(message)
        self.last = last
        """The last line of its output."""


class StoppedError(ToolchainError):
    """The step was stopped because another one has failed or the operator has interrupted the run."""
