"""What ends a run of the toolchain."""


class ToolchainError(Exception):
    """A step cannot be done; the message names the cause and what to do next."""
