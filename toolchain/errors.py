"""What ends a run of the toolchain."""

import threading

STOP = threading.Event()
"""Set when a lane of the run has failed or the operator has interrupted it: whoever waits gives up."""


class ToolchainError(Exception):
    """A step cannot be done; the message names the cause and what to do next."""


class CommandError(ToolchainError):
    """A command failed, or did not end in time."""

    def __init__(self, message: str, last: str) -> None:
        super().__init__(message)
        self.last = last
        """The last line that it wrote."""


class StoppedError(ToolchainError):
    """The step was given up because another one has failed, or the operator has interrupted the run."""
