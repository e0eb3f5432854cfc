"""remote: scripts on several hosts, in parallel and with a timeout. A local shell takes the place of ssh."""

import time

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
