"""What a plugin shows of a command's output, and what its error quotes."""

import asyncio

import pytest
from command_plugin.output import LINE_LIMIT, TAIL_CHARACTERS, Output
from command_plugin.properties import Properties, Secret


def shown(inputs: Properties, *chunks: bytes, stream: str = "stdout") -> list[str]:
    """Returns the lines that are shown of some output."""
    lines: list[str] = []

    async def show(message: str) -> None:
        lines.extend(message.split("\n"))

    async def feed() -> None:
        async with Output(inputs, show) as output:
            for chunk in chunks:
                output.feed(stream, chunk)

    asyncio.run(feed())
    return lines


def error(inputs: Properties, stderr: bytes = b"", stdout: bytes = b"") -> str:
    """Returns the message of the error for a command that has printed this."""

    async def show(message: str) -> None:
        raise AssertionError(message)

    async def fail() -> str:
        output = Output(inputs, show)
        output.feed("stderr", stderr)
        output.feed("stdout", stdout)
        return str(output.failure("exit status 1", "create"))

    return asyncio.run(fail())


def test_shown_lines_across_chunks() -> None:
    assert shown({}, b"on", b"e\ntwo\r\n\nth", b"ree") == ["one", "two", "", "three"]


def test_shown_long_line() -> None:
    assert [len(line) for line in shown({}, *[b"x" * 5000] * 20, b"\nnext")] == [LINE_LIMIT, 4]


def test_shown_many_lines() -> None:
    assert shown({}, b"x\n" * 1000) == ["x"] * 1000


def test_shown_secrets() -> None:
    inputs: Properties = {
        "environment": {"TOKEN": Secret("abcd1234")},
        "stdin": Secret("first line\nab\nlast line\n"),
    }
    lines = shown(inputs, b"the token is abcd1234\nfirst line!\nab\n", stream="stderr")
    assert lines == ["the token is [secret]", "[secret]!", "ab"]


def test_error_connection_secrets() -> None:
    """The private key is hidden, the host is not, although the whole connection is secret."""
    inputs: Properties = {"connection": Secret({"host": "myhost", "privateKey": Secret("the-key")})}
    assert "myhost said [secret]" in error(inputs, b"myhost said the-key")


def test_error_command() -> None:
    """The command is named and not quoted."""
    message = error({"create": Secret("ls secret-place")}, b"sh: 1: ls secret-place: not found")
    assert message == "exit status 1: running the `create` command:\nsh: 1: [secret]: not found"


def test_error_long_output() -> None:
    lines = [f"line {n} {'x' * 200}" for n in range(100)]
    message = error({}, "\n".join(lines).encode())
    assert message.endswith(lines[-1])
    assert len(message) < TAIL_CHARACTERS + 100
    assert "line 0 " not in message


@pytest.mark.parametrize(("logging", "quoted"), [("stdout", True), ("stderr", False), ("none", False)])
def test_error_without_stderr(logging: str, *, quoted: bool) -> None:
    """Stdout is quoted only where it may be shown."""
    message = error({"logging": logging}, stdout=b"why")
    assert message.endswith(":\nwhy" if quoted else "; it printed no error")
