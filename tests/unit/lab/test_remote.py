"""How hosts are asked: at once, in bounded time, with a shell of this machine in place of ssh."""

import time

from components.hosts import remote
from diagnosis.status import PROBE

HERE_BY_SHELL = "sh -c"


def test_variables_reach_the_script_as_they_are() -> None:
    value = "it's $HOME; `id`\nand more"
    answer = remote.run(HERE_BY_SHELL, 'printf %s "$VALUE"', {"VALUE": value})
    assert answer == remote.Answer(0, value, "")


def test_the_scripts_failure_is_not_that_of_the_host() -> None:
    answer = remote.run(HERE_BY_SHELL, "echo seen; echo why >&2; exit 3")
    assert answer == remote.Answer(3, "seen\n", "why")
    assert answer.reached


def test_a_host_that_says_nothing_is_given_up() -> None:
    started = time.monotonic()
    answer = remote.run(HERE_BY_SHELL, "sleep 30", seconds=0.5)
    assert not answer.reached
    assert answer.error == "no answer within 0.5 s"
    assert time.monotonic() - started < 5


def test_hosts_are_asked_at_the_same_time() -> None:
    hosts = {f"h{number}": HERE_BY_SHELL for number in range(8)}
    started = time.monotonic()
    answers = remote.ask(hosts, 'sleep 1; echo "$NAME"', {host: {"NAME": host} for host in hosts})
    assert {host: answer.text.strip() for host, answer in answers.items()} == {host: host for host in hosts}
    assert time.monotonic() - started < 5


def test_the_probe_ends_on_a_machine_that_has_nothing_of_the_lab() -> None:
    answer = remote.run(HERE_BY_SHELL, PROBE.read_text(), {"NETWORK": "no-such-network", "ENDPOINT": ""})
    assert answer.status == 0
    assert answer.text.splitlines()[-1] == "complete yes"
