"""HostFirewall: which verbs it runs on a host, in which order, and what follows from the answers."""

import io
import shlex
import sys
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from components.firewall import change, session
from components.firewall.drift import drift_of_rules, drift_of_sets
from components.firewall.host_firewall import HostFirewallProvider
from components.firewall.payload import program_digest, restore_sets
from components.firewall.rules.compile import ipset_name
from components.hosts.remote import Answer, HostError
from diagnosis.obstacle import SshHost

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


DONE = Answer(0, "", "")
TOO_LATE = Answer(1, "", "firewall: confirm: the change is rolled back already")
OPERATOR_ELSEWHERE = Answer(0, "203.0.113.9 40000 172.16.6.44 22\n", "")
SHOWN = Answer(0, f"[change]\nx\n[iptables]\n{LISTING}\n[ip6tables]\n[sets]\n", "")


class FlowTrials:
    """Stands in for `reach`, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, dict[str, str]], float]] = []
        self.closed: list[set[tuple[str, str]]] = []
        """The flows that are not open, for each call; after these, all flows are open."""

    def __call__(self, _ssh: object, _addresses: object, probes: Any, *, patience: float) -> Any:  # noqa: ANN401
        """Try flows."""
        self.asked.append((probes, patience))
        closed = self.closed.pop(0) if self.closed else set()
        flows = [(origin, target) for origin in probes for target in probes[origin]]
        return {flow: "172.16.6.99" for flow in flows if flow not in closed}


class Remote:
    """Stands in for `remote.run`, and keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, list[str]]] = []
        """Verb, argument and ssh command of each call; `operator` asks for the operator's address."""
        self.payloads: dict[str, dict[str, str]] = {}
        self.answers: dict[str, Callable[[], Answer]] = {
            "operator": lambda: Answer(0, "172.16.6.1 40000 172.16.6.44 22\n", ""),
            "confirm": lambda: SHOWN,
        }

    def __call__(
        self,
        ssh: str,
        script: str,
        variables: dict[str, str] | None = None,
        seconds: float = 30,
        *,
        stdin: str = "",
    ) -> Answer:
        """Run a script."""
        assert seconds > 0
        verb, argument = (variables["VERB"], variables["ARGUMENT"]) if variables else ("operator", "")
        assert variables or script == 'echo "$SSH_CONNECTION"'
        self.calls.append((verb, argument, shlex.split(ssh)))
        if stdin:
            with tarfile.open(fileobj=io.BytesIO(stdin.encode())) as archive:
                files = {member.name: archive.extractfile(member) for member in archive}
                self.payloads[verb] = {name: file.read().decode() for name, file in files.items() if file}
        return self.answers.get(verb, lambda: DONE)()

    def verbs(self) -> list[str]:
        """The verbs in their order."""
        return [verb for verb, _, _ in self.calls]


@pytest.fixture
def flows(monkeypatch: pytest.MonkeyPatch) -> FlowTrials:
    flows = FlowTrials()
    monkeypatch.setattr(change, "reach", flows)
    return flows


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only `sleep` moves."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", sleep)
    return now


@pytest.fixture
def host(flows: FlowTrials, now: list[float], monkeypatch: pytest.MonkeyPatch) -> Remote:
    host = Remote()
    monkeypatch.setattr(session, "run", host)
    return host


def test_create_confirms_over_a_new_connection(host: Remote) -> None:
    result = HostFirewallProvider().create(PROPS)
    assert host.verbs() == ["operator", "apply", "confirm"]
    for _, _, command in host.calls:
        assert {"ControlMaster=no", "ControlPath=none", PROPS["url"], PROPS["ssh_config"]} <= set(command)
    assert result.outs == STATE
    payload = host.payloads["apply"]
    assert payload["rules.v4"] == f"*filter\n:CALICO-LAB-INPUT - [0:0]\n-A CALICO-LAB-INPUT {RULE}\nCOMMIT\n"
    assert payload["rules.v6"] == ""
    assert host.calls[1][1] == "5"
    assert host.calls[2][1] == payload["change"].strip()


def test_create_tries_open_flows_again_before_the_confirmation(host: Remote, flows: FlowTrials) -> None:
    flows.closed = [{("a2", "a0:179")}]
    HostFirewallProvider().create(PROPS)
    assert [probes for probes, _ in flows.asked] == [
        PROBES,
        {"a1": PROBES["a1"], "a0": PROBES["a0"]},
    ], "a flow that was not open before the change is not tried after it"
    assert flows.asked[0][1] == 0
    assert 0 < flows.asked[1][1] < PROPS["undo_seconds"] / 2
    assert host.verbs() == ["operator", "apply", "confirm"]


@pytest.mark.parametrize("answers", [True, False])
def test_update_rolls_back_when_a_flow_is_blocked(
    answers: bool, host: Remote, flows: FlowTrials, monkeypatch: pytest.MonkeyPatch
) -> None:
    flows.closed = [set(), {("a1", "a0:179"), ("a1", "a0:2380")}]
    looked: list[tuple[str, str, str, int]] = []

    def obstacle(source: SshHost, target: SshHost, port: int) -> str:
        looked.append((source.host, source.address, target.host, port))
        assert "undo" not in host.verbs(), "the rule is looked for while it is loaded"
        return "a1 cannot open tcp/2380 on a0 (172.16.6.44): silent; a0 stops it: firewall.policies.p.default"

    monkeypatch.setattr(change, "obstacle", obstacle)
    if not answers:
        host.answers["undo"] = lambda: Answer(255, "", "timed out")
    with pytest.raises(HostError) as error:
        HostFirewallProvider().update("a0-firewall", STATE, PROPS)
    undone = "the host has put back what it had before (seen)"
    later = "the host rolls them back within 5 s (a0: firewall: undo: timed out)"
    assert str(error.value) == (
        "a0: firewall: the new rules were loaded, and flows that the lab needs, which were open before, are "
        "not open now: etcd's peers from a1 to a0:2380; BGP from a1 to a0:179. a1 cannot open tcp/2380 on "
        "a0 (172.16.6.44): silent; a0 stops it: firewall.policies.p.default. They are not confirmed: "
        f"{undone if answers else later}. Change the rule that blocks them, or set allowLockout: true on its "
        "policy, then run `pulumi up` again"
    )
    assert host.verbs() == ["operator", "apply", "undo"]
    assert looked == [("a1", "172.16.6.99", "a0", 2380)], "seen from the address that the packets come from"


def test_create_with_allow_lockout_tries_no_flow(host: Remote, flows: FlowTrials) -> None:
    HostFirewallProvider().create({**PROPS, "allow_lockout": True})
    assert flows.asked == []
    assert host.verbs() == ["apply", "confirm"]


def test_update_has_a_new_change_identifier(host: Remote) -> None:
    HostFirewallProvider().create(PROPS)
    first = host.payloads["apply"]["change"]
    HostFirewallProvider().update("a0-firewall", STATE, PROPS)
    assert host.payloads["apply"]["change"] != first


def test_create_refuses_an_operator_at_another_address(host: Remote) -> None:
    host.answers["operator"] = lambda: OPERATOR_ELSEWHERE
    with pytest.raises(HostError) as error:
        HostFirewallProvider().create(PROPS)
    assert str(error.value) == (
        "a0: firewall: this host sees you at 203.0.113.9, but the policies were checked for 172.16.6.1. "
        "Nothing was changed; set firewall.operator: [203.0.113.9]"
    )
    assert host.verbs() == ["operator"]
    HostFirewallProvider().create({**PROPS, "allow_lockout": True})
    assert host.verbs() == ["operator", "apply", "confirm"]


def test_check_refuses_an_operator_at_another_address(host: Remote) -> None:
    host.answers["operator"] = lambda: OPERATOR_ELSEWHERE
    [failure] = HostFirewallProvider().check({}, PROPS).failures
    assert "this host sees you at 203.0.113.9" in failure.reason
    assert HostFirewallProvider().check({}, {**PROPS, "allow_lockout": True}).failures == []


def test_check_passes_without_a_change_or_an_answer(host: Remote) -> None:
    assert HostFirewallProvider().check(PROPS, PROPS).failures == []
    assert host.verbs() == []
    host.answers["operator"] = lambda: Answer(255, "", "no route to host")
    assert HostFirewallProvider().check({}, PROPS).failures == []


def test_update_without_confirmation_fails_with_the_cause(host: Remote) -> None:
    answers = iter([Answer(255, "", "ssh: connect to host 172.16.6.44: timed out"), TOO_LATE])
    host.answers["confirm"] = lambda: next(answers)
    with pytest.raises(HostError) as error:
        HostFirewallProvider().update("a0-firewall", STATE, {**PROPS, "undo_seconds": 1})
    assert str(error.value) == (
        "a0: firewall: the new rules were loaded, but no new SSH connection confirmed them "
        "(a0: firewall: confirm: ssh: connect to host 172.16.6.44: timed out); "
        "the host has put back what it had before (seen). "
        "Find the rule that cuts it off and change it, then run `pulumi up` again"
    )


def test_update_confirms_again_after_a_lost_answer(host: Remote) -> None:
    answers = iter([Answer(255, "", "Connection reset by peer"), host.answers["confirm"]()])
    host.answers["confirm"] = lambda: next(answers)
    assert HostFirewallProvider().update("a0-firewall", STATE, PROPS).outs == STATE
    assert host.verbs() == ["operator", "apply", "confirm", "confirm"]
    assert host.calls[2][1] == host.calls[3][1]


def test_update_stops_confirming_after_a_rollback(host: Remote) -> None:
    host.answers["confirm"] = lambda: TOO_LATE
    with pytest.raises(HostError, match=r"has put back what it had before \(seen\)"):
        HostFirewallProvider().update("a0-firewall", STATE, {**PROPS, "undo_seconds": 300})
    assert host.verbs().count("confirm") == 1


def test_update_advises_a_longer_window_for_a_slow_host(host: Remote, now: list[float]) -> None:
    host.answers["confirm"] = lambda: TOO_LATE

    def apply() -> Answer:
        now[0] += 8
        return DONE

    host.answers["apply"] = apply
    with pytest.raises(HostError, match=r"the host took 8 s to load.*Set firewall.undoSeconds above 8"):
        HostFirewallProvider().update("a0-firewall", STATE, PROPS)


def test_update_reports_no_rollback_without_an_answer(host: Remote) -> None:
    host.answers["confirm"] = lambda: Answer(255, "", "gone")
    with pytest.raises(HostError, match="look at it from its console"):
        HostFirewallProvider().update("a0-firewall", STATE, {**PROPS, "undo_seconds": 1})


def test_create_reports_a_host_error_without_a_traceback(host: Remote) -> None:
    host.answers["apply"] = lambda: Answer(
        1,
        "",
        "# Warning: iptables-legacy tables present\nfirewall: test: ipset is not installed on this host",
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


def test_diff_after_drift_is_an_update() -> None:
    result = HostFirewallProvider().diff("a0-firewall", {**STATE, "drift": ["iptables: gone: x"]}, PROPS)
    assert result.changes


def test_read_returns_the_drift(host: Remote) -> None:
    host.answers["show"] = lambda: Answer(
        0,
        "[change]\nx\n[iptables]\n-N CALICO-LAB-INPUT\n-A CALICO-LAB-INPUT -j ACCEPT\n"
        f"-A CALICO-LAB-INPUT {RULE}\n[ip6tables]\n[sets]\n",
        "",
    )
    result = HostFirewallProvider().read("a0-firewall", STATE)
    assert result.outs == {
        **STATE,
        "drift": [
            "iptables: gone: -A INPUT -j CALICO-LAB-INPUT",
            "iptables: found: -A CALICO-LAB-INPUT -j ACCEPT",
        ],
    }
    host.answers["show"] = lambda: SHOWN
    assert HostFirewallProvider().read("a0-firewall", result.outs).outs == STATE


def test_delete_runs_remove(host: Remote) -> None:
    HostFirewallProvider().delete("a0-firewall", STATE)
    assert host.verbs() == ["remove"]


def test_drift_of_rules_in_order() -> None:
    assert drift_of_rules(["a", "b", "c"], ["a", "b", "c"]) == []
    assert drift_of_rules(["a", "b", "c"], ["b", "c", "d"]) == ["gone: a", "found: d"]


def test_drift_of_sets_compares_members() -> None:
    members = "10.0.0.1/32\n10.1.0.0/16\n"
    name = ipset_name("few/ipv4", members)
    sets = {"few/ipv4": members}
    assert drift_of_sets(sets, [f"{name} 10.1.0.0/16", f"{name} 10.0.0.1"]) == []
    assert drift_of_sets(sets, [f"{name} 10.1.0.0/16", "cl4-other-00000000 10.9.9.9"]) == [
        f"gone: {name} 10.0.0.1/32",
        "found: cl4-other-00000000 10.9.9.9/32",
    ]


def test_restore_sets_fills_a_draft_and_swaps() -> None:
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


def test_delete_uses_the_url_of_the_state(host: Remote) -> None:
    HostFirewallProvider().delete("a0-firewall", STATE)
    [(verb, _, command)] = host.calls
    assert verb == "remove"
    assert STATE["url"] in command
    assert STATE["host"] not in command, "the name may mean another host by now"
