"""remote: scripts on several hosts, in parallel and with a timeout. A local shell takes the place of ssh."""

import os
import time
from pathlib import Path

import pytest

from components.hosts import remote

LOCAL_SHELL = "sh -c"


def test_run_exports_variables_unchanged() -> None:
    value = "it's $HOME; `id`\nand more"
    answer = remote.run(LOCAL_SHELL, 'printf %s "$VALUE"', {"VALUE": value})
    assert answer == remote.Answer(0, value, "")


def test_run_failing_script_is_reached() -> None:
    answer = remote.run(LOCAL_SHELL, "echo seen; echo why >&2; exit 3")
    assert answer == remote.Answer(3, "seen\n", "why")
    assert answer.reached


def test_run_timeout() -> None:
    started = time.monotonic()
    answer = remote.run(LOCAL_SHELL, "sleep 30", seconds=0.5)
    assert not answer.reached
    assert answer.error == "no answer within 0.5 s"
    assert time.monotonic() - started < 5


def test_ask_is_parallel() -> None:
    hosts = {f"h{number}": LOCAL_SHELL for number in range(8)}
    started = time.monotonic()
    answers = remote.ask(hosts, 'sleep 1; echo "$NAME"', {host: {"NAME": host} for host in hosts})
    assert {host: answer.text.strip() for host, answer in answers.items()} == {host: host for host in hosts}
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_transfer_sends_every_byte(size: int, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(size))
    variables = {"SOURCE": str(source), "TARGET": str(target)}
    sides = ((LOCAL_SHELL, 'exec cat "$SOURCE"'), (LOCAL_SHELL, 'exec cat >"$TARGET"'))
    assert remote.transfer(*sides, variables, 20) == ""
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("source", "target", "problem"),
    [
        ("echo gone >&2; exit 3", "cat >/dev/null", "gone"),
        ("exit 3", "cat >/dev/null", "exit codes 3 and 0"),
        ("yes", "echo full >&2; exit 1", "full"),
        ("exec sleep 30", "cat >/dev/null", "not done within 1 s"),
    ],
)
def test_transfer_names_the_problem(source: str, target: str, problem: str) -> None:
    seconds = 1 if "not done" in problem else 30
    assert problem in remote.transfer((LOCAL_SHELL, source), (LOCAL_SHELL, target), {}, seconds)
