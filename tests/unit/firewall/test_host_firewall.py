"""The resource: what it asks of a host, in which order, and what it makes of the answers."""

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from components.firewall import host_firewall
from components.firewall.host_firewall import (
    HostFirewallProvider,
    drift_of_rules,
    drift_of_sets,
    program_digest,
    restore_sets,
)
from components.firewall.rules.compile import ipset_name
from components.hosts.remote import HostError
from diagnosis.obstacle import End

RULE = '-s 172.16.6.66/32 -m comment --comment "p/1" -j DROP'
LISTING = f"-A INPUT -j CALICO-LAB-INPUT\n-N CALICO-LAB-INPUT\n-A CALICO-LAB-INPUT {RULE}"
PROBES = {
    "a1": {"a0:2380": "etcd's peers", "a0:179": "BGP"},
    "a2": {"a0:179": "BGP"},
    "a0": {"a1:2380": "etcd's peers"},
}
PROPS: dict[str, Any] = {
    "host": "a0",
    "url": "ssh://root@172.16.6.44:22",
    "machine": "0123",
    "ssh_config": ".state/ssh/lab/config",
    "policies": ["p"],
    "ipv4": {"CALICO-LAB-INPUT": {"p": [RULE]}},
    "ipv6": {},
    "sets": {},
    "operator": ["172.16.6.1"],
    "probes": PROBES,
    "addresses": {"a0": "172.16.6.44", "a1": "172.16.6.218", "a2": "172.16.6.231"},
    "undo_seconds": 5,
    "allow_lockout": False,
    "program": program_digest(),
}
STATE = {**PROPS, "loaded": {"ipv4": LISTING, "ipv6": ""}, "drift": []}


class Answer:
    """What a host does when it is asked for a verb: an exit code, what it prints, and its errors."""

    def __init__(self, stdout: str = "", stderr: str = "", code: int = 0) -> None:
        self.done = subprocess.CompletedProcess([], code, stdout.encode(), stderr.encode())


UNDONE = Answer(stderr="firewall: confirm: the change is undone already", code=1)


class Reach:
    """Stands for what the hosts say of the flows between them; keeps what is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, dict[str, str]], float]] = []
        self.closed: list[set[tuple[str, str]]] = []
        """The flows that do not come about, for each time that is asked; none when it is empty."""

    def __call__(self, _ssh: object, _addresses: object, probes: Any, *, patience: float) -> Any:  # noqa: ANN401
        """Take the place of `reach`."""
        self.asked.append((probes, patience))
        closed = self.closed.pop(0) if self.closed else set()
        flows = [(origin, target) for origin in probes for target in probes[origin]]
        return {flow: "172.16.6.99" for flow in flows if flow not in closed}


class Ssh:
    """Stands for the `ssh` program, and keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.payloads: dict[str, dict[str, str]] = {}
        self.answers: dict[str, Callable[[], Answer]] = {
            "operator": lambda: Answer("172.16.6.1 40000 172.16.6.44 22\n"),
            "apply": Answer,
            "confirm": lambda: Answer(f"[change]\nx\n[iptables]\n{LISTING}\n[ip6tables]\n[sets]\n"),
            "undo": Answer,
            "remove": Answer,
        }

    def __call__(self, command: list[str], *, input: bytes, **_: object) -> Any:  # noqa: ANN401
        """Take the place of `subprocess.run`."""
        remote = command[-1]
        verb, *rest = remote.partition('firewall.sh" ')[2].split("'")[0].split() or ["operator"]
        self.calls.append((verb, command[:-1] + rest))
        if input:
            with tarfile.open(fileobj=io.BytesIO(input)) as archive:
                files = {member.name: archive.extractfile(member) for member in archive}
                self.payloads[verb] = {name: file.read().decode() for name, file in files.items() if file}
        return self.answers[verb]().done

    def verbs(self) -> list[str]:
        """The verbs in the order in which they were asked for."""
        return [verb for verb, _ in self.calls]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Reach:
    tried = Reach()
    monkeypatch.setattr(host_firewall, "reach", tried)
    return tried


@pytest.fixture
def ssh(tried: Reach, monkeypatch: pytest.MonkeyPatch) -> Ssh:
    ssh = Ssh()
    monkeypatch.setattr(subprocess, "run", ssh)
    monkeypatch.setattr(host_firewall, "GRACE_SECONDS", 1)
    monkeypatch.setattr(sys, "tracebacklimit", None, raising=False)
    return ssh


def test_create_applies_and_confirms_over_connections_of_their_own(ssh: Ssh) -> None:
    result = HostFirewallProvider().create(PROPS)
    assert ssh.verbs() == ["operator", "apply", "confirm"]
    for _, command in ssh.calls:
        assert {"-oControlMaster=no", "-oControlPath=none", PROPS["url"]} <= set(command)
    assert result.outs == STATE
    payload = ssh.payloads["apply"]
    assert payload["rules.v4"] == f"*filter\n:CALICO-LAB-INPUT - [0:0]\n-A CALICO-LAB-INPUT {RULE}\nCOMMIT\n"
    assert payload["rules.v6"] == ""
    change = payload["change"].strip()
    assert ssh.calls[1][1][-1] == "5"
    assert ssh.calls[2][1][-1] == change


def test_flows_that_came_about_are_tried_again_before_the_confirmation(ssh: Ssh, tried: Reach) -> None:
    tried.closed = [{("a2", "a0:179")}]
    HostFirewallProvider().create(PROPS)
    assert [probes for probes, _ in tried.asked] == [
        PROBES,
        {"a1": PROBES["a1"], "a0": PROBES["a0"]},
    ], "what did not come about before the change is nothing to it"
    assert tried.asked[0][1] == 0
    assert 0 < tried.asked[1][1] < PROPS["undo_seconds"] / 2
    assert ssh.verbs() == ["operator", "apply", "confirm"]


@pytest.mark.parametrize("answers", [True, False])
def test_a_flow_that_no_longer_comes_about_undoes_the_change(
    answers: bool, ssh: Ssh, tried: Reach, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried.closed = [set(), {("a1", "a0:179"), ("a1", "a0:2380")}]
    looked: list[tuple[str, str, str, int]] = []

    def obstacle(source: End, target: End, port: int) -> str:
        looked.append((source.host, source.address, target.host, port))
        assert "undo" not in ssh.verbs(), "the rule is looked for while it is loaded"
        return "a1 cannot open tcp/2380 on a0 (172.16.6.44): silent; a0 stops it: firewall.policies.p.default"

    monkeypatch.setattr(host_firewall, "obstacle", obstacle)
    if not answers:
        ssh.answers["undo"] = lambda: Answer(stderr="timed out", code=255)
    with pytest.raises(HostError) as error:
        HostFirewallProvider().update("a0-firewall", STATE, PROPS)
    undone = "the host has put back what it had before (seen)"
    later = "the host undoes them within 5 s (a0: firewall: undo: timed out)"
    assert str(error.value) == (
        "a0: firewall: the new rules were loaded, and what the lab itself needs no longer came about, which "
        "it did before: etcd's peers from a1 to a0:2380; BGP from a1 to a0:179. a1 cannot open tcp/2380 on "
        "a0 (172.16.6.44): silent; a0 stops it: firewall.policies.p.default. They are not confirmed: "
        f"{undone if answers else later}. Change the rule that stops it, or set allowLockout: true on its "
        "policy, then run `pulumi up` again"
    )
    assert ssh.verbs() == ["operator", "apply", "undo"]
    assert looked == [("a1", "172.16.6.99", "a0", 2380)], "seen from the address that the packets come from"


def test_what_may_lock_out_is_not_tried(ssh: Ssh, tried: Reach) -> None:
    HostFirewallProvider().create({**PROPS, "allow_lockout": True})
    assert tried.asked == []
    assert ssh.verbs() == ["apply", "confirm"]


def test_every_change_has_a_name_of_its_own(ssh: Ssh) -> None:
    HostFirewallProvider().create(PROPS)
    first = ssh.payloads["apply"]["change"]
    HostFirewallProvider().update("a0-firewall", STATE, PROPS)
    assert ssh.payloads["apply"]["change"] != first


def test_an_operator_at_another_address_is_refused_before_anything_changes(ssh: Ssh) -> None:
    ssh.answers["operator"] = lambda: Answer("203.0.113.9 40000 172.16.6.44 22\n")
    with pytest.raises(HostError) as error:
        HostFirewallProvider().create(PROPS)
    assert str(error.value) == (
        "a0: firewall: this host sees you at 203.0.113.9, but the policies were checked for 172.16.6.1. "
        "Nothing was changed; set firewall.operator: [203.0.113.9]"
    )
    assert ssh.verbs() == ["operator"]
    HostFirewallProvider().create({**PROPS, "allow_lockout": True})
    assert ssh.verbs() == ["operator", "apply", "confirm"]


def test_a_preview_refuses_an_operator_at_another_address(ssh: Ssh) -> None:
    ssh.answers["operator"] = lambda: Answer("203.0.113.9 40000 172.16.6.44 22\n")
    [failure] = HostFirewallProvider().check({}, PROPS).failures
    assert "this host sees you at 203.0.113.9" in failure.reason
    assert HostFirewallProvider().check({}, {**PROPS, "allow_lockout": True}).failures == []


def test_a_preview_asks_no_host_that_does_not_change_or_answer(ssh: Ssh) -> None:
    assert HostFirewallProvider().check(PROPS, PROPS).failures == []
    assert ssh.verbs() == []
    ssh.answers["operator"] = lambda: Answer(stderr="no route to host", code=255)
    assert HostFirewallProvider().check({}, PROPS).failures == []


def test_what_is_not_confirmed_fails_with_the_cause(ssh: Ssh) -> None:
    answers = iter([Answer(stderr="ssh: connect to host 172.16.6.44: timed out\n", code=255), UNDONE])
    ssh.answers["confirm"] = lambda: next(answers)
    with pytest.raises(HostError) as error:
        HostFirewallProvider().update("a0-firewall", STATE, {**PROPS, "undo_seconds": 1})
    assert str(error.value) == (
        "a0: firewall: the new rules were loaded, but no new SSH connection confirmed them "
        "(a0: firewall: confirm: ssh: connect to host 172.16.6.44: timed out); "
        "the host has put back what it had before (seen). "
        "Find the rule that cuts it off and change it, then run `pulumi up` again"
    )


def test_a_confirmation_whose_answer_was_lost_is_asked_for_again(ssh: Ssh) -> None:
    answers = iter([Answer(stderr="Connection reset by peer", code=255), ssh.answers["confirm"]()])
    ssh.answers["confirm"] = lambda: next(answers)
    assert HostFirewallProvider().update("a0-firewall", STATE, PROPS).outs == STATE
    assert ssh.verbs() == ["operator", "apply", "confirm", "confirm"]
    assert ssh.calls[2][1][-1] == ssh.calls[3][1][-1]


def test_a_host_that_has_undone_already_is_not_asked_again(ssh: Ssh) -> None:
    ssh.answers["confirm"] = lambda: UNDONE
    with pytest.raises(HostError, match=r"has put back what it had before \(seen\)"):
        HostFirewallProvider().update("a0-firewall", STATE, {**PROPS, "undo_seconds": 300})
    assert ssh.verbs().count("confirm") == 1


def test_a_host_that_takes_longer_than_its_window_is_given_more_and_not_other_rules(
    ssh: Ssh, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    ssh.answers["confirm"] = lambda: UNDONE

    def apply() -> Answer:
        now[0] += 8
        return Answer()

    ssh.answers["apply"] = apply
    with pytest.raises(HostError, match=r"the host took 8 s to load.*Set firewall.undoSeconds above 8"):
        HostFirewallProvider().update("a0-firewall", STATE, PROPS)


def test_a_host_that_stays_away_is_not_said_to_have_undone(ssh: Ssh) -> None:
    ssh.answers["confirm"] = lambda: Answer(stderr="gone", code=255)
    with pytest.raises(HostError, match="look at it from its console"):
        HostFirewallProvider().update("a0-firewall", STATE, {**PROPS, "undo_seconds": 1})


def test_a_host_error_reaches_the_terminal_without_a_traceback(ssh: Ssh) -> None:
    ssh.answers["apply"] = lambda: Answer(
        stderr="firewall: test: ipset is not installed on this host", code=1
    )
    with pytest.raises(HostError, match="a0: firewall: apply: firewall: test: ipset is not installed"):
        HostFirewallProvider().create(PROPS)
    assert sys.tracebacklimit == 0


@pytest.mark.parametrize(
    ("change", "changes", "replaces"),
    [
        ({}, False, []),
        ({"ipv4": {}}, True, []),
        ({"policies": ["p", "q"]}, True, []),
        ({"sets": {"few/ipv4": "10.0.0.1/32\n"}}, True, []),
        ({"program": "another"}, True, []),
        ({"undo_seconds": 60, "operator": ["192.0.2.1"], "ssh_config": "elsewhere"}, False, []),
        # It would be removed by the login before.
        ({"url": "ssh://ops@172.16.6.44:2222"}, True, []),
        ({"host": "a1"}, True, ["host"]),
        ({"machine": "4567"}, True, ["machine"]),
    ],
)
def test_diff(change: dict[str, Any], changes: bool, replaces: list[str]) -> None:
    result = HostFirewallProvider().diff("a0-firewall", STATE, {**PROPS, **change})
    assert (result.changes, result.replaces) == (changes, replaces)


def test_drift_that_was_seen_is_repaired_by_the_next_update() -> None:
    result = HostFirewallProvider().diff("a0-firewall", {**STATE, "drift": ["iptables: gone: x"]}, PROPS)
    assert result.changes


def test_read_tells_what_differs_on_the_host(ssh: Ssh) -> None:
    ssh.answers["show"] = lambda: Answer(
        "[change]\nx\n[iptables]\n-N CALICO-LAB-INPUT\n-A CALICO-LAB-INPUT -j ACCEPT\n"
        f"-A CALICO-LAB-INPUT {RULE}\n[ip6tables]\n[sets]\n"
    )
    result = HostFirewallProvider().read("a0-firewall", STATE)
    assert result.outs == {
        **STATE,
        "drift": [
            "iptables: gone: -A INPUT -j CALICO-LAB-INPUT",
            "iptables: found: -A CALICO-LAB-INPUT -j ACCEPT",
        ],
    }
    ssh.answers["show"] = lambda: Answer(f"[change]\nx\n[iptables]\n{LISTING}\n[ip6tables]\n[sets]\n")
    assert HostFirewallProvider().read("a0-firewall", result.outs).outs == STATE


def test_delete_removes(ssh: Ssh) -> None:
    HostFirewallProvider().delete("a0-firewall", STATE)
    assert ssh.verbs() == ["remove"]


def test_drift_of_rules_in_order() -> None:
    assert drift_of_rules(["a", "b", "c"], ["a", "b", "c"]) == []
    assert drift_of_rules(["a", "b", "c"], ["b", "c", "d"]) == ["gone: a", "found: d"]


def test_drift_of_sets_is_about_members() -> None:
    members = "10.0.0.1/32\n10.1.0.0/16\n"
    name = ipset_name("few/ipv4", members)
    sets = {"few/ipv4": members}
    assert drift_of_sets(sets, [f"{name} 10.1.0.0/16", f"{name} 10.0.0.1"]) == []
    assert drift_of_sets(sets, [f"{name} 10.1.0.0/16", "cl4-other-00000000 10.9.9.9"]) == [
        f"gone: {name} 10.0.0.1/32",
        "found: cl4-other-00000000 10.9.9.9/32",
    ]


def test_a_set_is_filled_beside_the_one_in_use() -> None:
    members = "fd00::/8\n"
    name = ipset_name("few/ipv6", members)
    assert restore_sets({"few/ipv6": members}).splitlines() == [
        f"create -exist {name} hash:net family inet6 maxelem 65536",
        "create -exist cl6-draft hash:net family inet6 maxelem 65536",
        "flush cl6-draft",
        "add cl6-draft fd00::/8",
        f"swap cl6-draft {name}",
        "destroy cl6-draft",
    ]


def test_a_firewall_is_removed_where_it_was_loaded(ssh: Ssh) -> None:
    HostFirewallProvider().delete("a0-firewall", STATE)
    [(verb, command)] = ssh.calls
    assert verb == "remove"
    assert STATE["url"] in command
    assert STATE["host"] not in command, "the name may mean another host by now"
