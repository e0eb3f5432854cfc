"""What is shown, what an error quotes, and what neither gives away."""

import asyncio

import pytest
from command_plugin.output import TAIL_CHARACTERS, Output, Stream
from command_plugin.properties import Properties, Secret


class Shown:
    """A log that keeps what is shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    async def status(self, message: str) -> None:
        """Keep it."""
        self.lines += message.split("\n")

    async def warning(self, message: str) -> None:
        """Not expected."""
        raise AssertionError(message)

    async def error(self, message: str) -> None:
        """Not expected."""
        raise AssertionError(message)


def show(inputs: Properties, *chunks: bytes, stream: Stream = Stream.STDOUT) -> list[str]:
    async def feed() -> list[str]:
        log = Shown()
        async with Output(inputs, log) as output:
            for chunk in chunks:
                output.feed(stream, chunk)
        return log.lines

    return asyncio.run(feed())


def error(inputs: Properties, stderr: bytes = b"", stdout: bytes = b"") -> str:
    async def fail() -> str:
        output = Output(inputs, Shown())
        output.feed(Stream.STDERR, stderr)
        output.feed(Stream.STDOUT, stdout)
        return str(output.failure("exit status 1", inputs, "create"))

    return asyncio.run(fail())


def test_lines_are_put_together_from_what_arrives() -> None:
    assert show({}, b"on", b"e\ntwo\r\n\nth", b"ree") == ["one", "two", "", "three"]


def test_a_line_is_shown_up_to_a_bound() -> None:
    assert [len(line) for line in show({}, *[b"x" * 5000] * 20, b"\nnext")] == [16384, 4]


def test_secrets_are_not_shown() -> None:
    inputs: Properties = {
        "environment": {"TOKEN": Secret("abcd1234")},
        "stdin": Secret("first line\nab\nlast line\n"),
    }
    shown = show(inputs, b"the token is abcd1234\nfirst line!\nab\n", stream=Stream.STDERR)
    assert shown == ["the token is [secret]", "[secret]!", "ab"]


def test_the_host_of_a_secret_connection_is_not_a_secret_but_its_key_is() -> None:
    inputs: Properties = {
        "connection": Secret({"host": "myhost", "password": Secret("pass-word")}),
        "create": "x",
    }
    assert "myhost said [secret]" in error(inputs, b"myhost said pass-word")


@pytest.mark.parametrize(
    ("command", "first"),
    [
        ("ls /nowhere", "ls /nowhere"),
        ("\n  ls -l\nrm x", "ls -l"),
        ("#!/bin/sh\n# list\nset -eu\nls", "ls"),
        ("export A='1'\nexport B=\"2 3\"\nls", "ls"),
        ("export A='line\nline'\\''s end'\nls", "ls"),
        ("A=1 B='2' ls; rm x", "ls; rm x"),
        ("export A=1; ls", "ls"),
        ("export A=$(cat key) && ls", "ls"),
        ("x" * 200, "x" * 120 + "…"),
    ],
)
def test_the_first_statement_of_a_command_is_quoted(command: str, first: str) -> None:
    assert error({"create": command}).startswith(f"exit status 1: running {first!r}")


def test_a_secret_command_is_not_quoted() -> None:
    assert error({"create": Secret("ls secret-place")}, b"gone") == (
        "exit status 1: running the `create` command, which is secret:\ngone"
    )


def test_the_end_of_stderr_is_quoted() -> None:
    lines = [f"line {n} {'x' * 200}" for n in range(100)]
    message = error({"create": "x"}, "\n".join(lines).encode())
    assert message.endswith(lines[-1])
    assert len(message) < TAIL_CHARACTERS + 100
    assert "line 0 " not in message


@pytest.mark.parametrize(("logging", "quoted"), [("stdout", True), ("stderr", False), ("none", False)])
def test_stdout_is_quoted_only_where_it_may_be_shown(logging: str, *, quoted: bool) -> None:
    message = error({"create": "x", "logging": logging}, stdout=b"why")
    assert message.endswith(":\nwhy" if quoted else ", which printed no error")


def test_a_silent_failure_is_told() -> None:
    assert error({"create": "false"}) == "exit status 1: running 'false', which printed no error"
