"""`lab trace`: what machines said in a real lab, and what is told of it.

Each folder of `trace/` is a walk: `<host>.probe.txt` and `<host>.side.txt` are what the hosts said,
`sent.txt` is what the sender got, and `told.txt` is the command, its exit code and what it has to print.
"""

import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from components.hosts import remote
from diagnosis import packet_trace as firewall_trace
from diagnosis.explanation import Step
from diagnosis.trace import felix, packets, programs, side, taps, walk
from lab import __main__ as command
from tests.unit.lab import lab_cases
from tests.unit.pretend_host import PretendHost
from workspace import outputs as stack

HERE = Path(__file__).parent
CASES = sorted((HERE / "trace").iterdir())
ACROSS = HERE / "trace" / "across-hosts"
BY_PROGRAMS = HERE / "trace" / "ebpf-across-hosts"
_TOLD = re.compile(r"\$ lab trace (?P<ask>.*?) +# exit (?P<exit>\d)\n(?P<text>.*)", re.DOTALL)


class Machines:
    """Stands for the lab's machines, says what they said, and keeps what they were asked."""

    def __init__(self, case: Path, changes: Callable[[str, str], str] = lambda name, text: text) -> None:
        self.case = case
        self.changes = changes
        self.watched: dict[str, Mapping[str, str]] = {}
        self.sent: Mapping[str, str] | None = None
        self.over: list[threading.Event] = []

    def said(self, name: str) -> remote.Answer:
        """What a machine said, as a case changes it."""
        text = self.changes(name, (self.case / name).read_text())
        if failed := re.match(r"status (\d+)\n(.*)\n", text):
            return remote.Answer(int(failed[1]), text[failed.end() :], failed[2])
        return remote.Answer(0, text, "")

    def ask(
        self, ssh: Mapping[str, str], script: str, variables: Mapping[str, Mapping[str, str]]
    ) -> dict[str, remote.Answer]:
        """Take the place of `remote.ask`."""
        return {host: self.said(f"{host}.probe.txt") for host in ssh}

    def watch(
        self,
        ssh: str,
        script: str,
        variables: Mapping[str, str],
        seconds: float,
        *,
        ready: Callable[[], object],
        over: threading.Event,
    ) -> remote.Answer:
        """Take the place of `remote.watch`."""
        host = ssh.rsplit(maxsplit=1)[-1]
        self.watched[host] = variables
        self.over.append(over)
        ready()
        assert over.wait(5), "the watch is ended by nobody"
        return self.said(f"{host}.side.txt")

    def run(self, ssh: str, script: str, variables: Mapping[str, str], seconds: float) -> remote.Answer:
        """Take the place of `remote.run`."""
        assert self.watched
        assert not any(over.is_set() for over in self.over), "it is sent while all watch"
        self.sent = variables
        return self.said("sent.txt")


def trace(
    monkeypatch: pytest.MonkeyPatch, machines: Machines, *arguments: str, reflectors: tuple[str, ...] = ()
) -> Result:
    dataplane = "ebpf" if machines.case.name.startswith("ebpf-") else "iptables"
    outputs = replace(lab_cases.outputs(), dataplane=dataplane, route_reflectors=reflectors)
    monkeypatch.setattr(stack, "read", lambda name: outputs)
    for name in ("ask", "watch", "run"):
        monkeypatch.setattr(remote, name, getattr(machines, name))
    return CliRunner().invoke(command.main, ["trace", *arguments])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_told(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = _TOLD.fullmatch((case / "told.txt").read_text())
    assert told
    result = trace(monkeypatch, Machines(case), *told["ask"].split())
    assert result.output == told["text"]
    assert result.exit_code == int(told["exit"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_json_tells_the_same(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = _TOLD.fullmatch((case / "told.txt").read_text())
    assert told
    result = trace(monkeypatch, Machines(case), "--json", *told["ask"].split())
    document = json.loads(result.output)
    assert result.exit_code == int(told["exit"])
    assert document["arrived"] == (result.exit_code == 0)
    parts = [
        value for hop in document["hops"] for value in (hop["where"], hop["what"], *hop["facts"].values())
    ]
    parts += list((document["finding"] or {}).values())
    assert [part for part in parts if part not in told["text"]] == []
    assert [hop["seen"] for hop in document["hops"]].count(False) <= 1


def test_what_the_machines_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = Machines(ACROSS)
    trace(monkeypatch, machines, "web-a0", "web-a1")
    assert {host: asked["CONTAINERS"] for host, asked in machines.watched.items()} == {
        "a0": "web-a0",
        "a1": "web-a1",
    }
    assert {asked["MATCH"] for asked in machines.watched.values()} == {"icmp type echo-request"}
    assert {asked["SOURCES"] for asked in machines.watched.values()} == {machines.watched["a0"]["SOURCE"]}
    assert machines.sent == {
        "CONTAINER": "web-a0",
        "TARGET": machines.watched["a0"]["TARGET"],
        "PROTOCOL": "icmp",
        "PORT": "",
    }


def test_a_host_knows_the_packet_although_it_hides_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = Machines(ACROSS)
    trace(monkeypatch, machines, "web-a0", "a1")
    assert machines.watched["a1"]["SOURCES"] == f"{machines.watched['a0']['SOURCE']}, 172.16.6.44"


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (["nobody", "web-a1"], "nobody: is no container on the lab's hosts; on netv are a0/web-a0"),
        (
            ["web-a0", "nobody"],
            "nobody: is neither an IPv4 address, nor a host (a0, a1, a2), nor a container",
        ),
        (["a9/web-a0", "web-a1"], "a9/web-a0: a9 is not a host of the lab; they are a0, a1, a2"),
        (["a1/web-a0", "web-a1"], "a1/web-a0: is no container"),
        (["web-a0", "fd00::1"], "fd00::1: is neither an IPv4 address"),
        (["web-a0", "a0/web-a0"], "is a0/web-a0 itself"),
        (["web-a0", "web-a1", "tcp"], "tcp: must be like tcp/8888, udp/53 or icmp"),
        (["web-a0", "web-a1", "tcp/0"], "tcp/0: must be like"),
        (["web-a0", "web-a1", "icmp/8"], "icmp/8: must be like"),
        (["web-a0"], "Missing argument"),
    ],
)
def test_wrong_usage(ask: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machines = Machines(ACROSS)
    result = trace(monkeypatch, machines, *ask)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert machines.sent is None


def test_a_name_on_two_hosts_needs_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = Machines(ACROSS, lambda name, text: text.replace("/web-a1", "/web").replace("/web-a0", "/web"))
    result = trace(monkeypatch, machines, "web", "sshbox")
    assert result.exit_code == 2
    assert "web: may be any of a0/web, a1/web" in " ".join(result.output.split())
    trace(monkeypatch, machines, "a1/web", "a0/web")
    assert machines.sent
    assert machines.sent["CONTAINER"] == "web"


def test_an_address_is_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    result = trace(monkeypatch, Machines(ACROSS), "192.168.0.101", "172.16.6.218")
    assert result.output.startswith("icmp from a0/calico-lab-sshbox (192.168.0.101) to a1 (172.16.6.218)\n")


def test_a_container_that_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = Machines(ACROSS, lambda name, text: text.replace('"running"', '"exited"'))
    result = trace(monkeypatch, machines, "web-a0", "web-a1")
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "a0/web-a0: is exited, and has no network without a process",
        "    next: ssh -F .state/ssh/lab/config a0 docker start web-a0",
    ]


def test_a_container_that_is_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = Machines(ACROSS, lambda name, text: text.replace('"running"', '"paused"'))
    result = trace(monkeypatch, machines, "web-a0", "web-a1")
    assert result.output.splitlines() == [
        "a0/web-a0: is paused, and neither sends nor answers",
        "    next: ssh -F .state/ssh/lab/config a0 docker unpause web-a0",
    ]


def test_a_container_with_its_hosts_network_is_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    as_host = (
        '{"name":"/on-a1","image":"i","labels":{},"state":"running","health":null,"networks":{"host":{}}}'
    )
    machines = Machines(
        HERE / "trace" / "to-other-host",
        lambda name, text: f"container {as_host}\n{text}" if name == "a1.probe.txt" else text,
    )
    result = trace(monkeypatch, machines, "web-a0", "on-a1")
    assert result.output.startswith("icmp from a0/web-a0 (192.168.0.64) to a1 (172.16.6.218)\n")
    assert result.exit_code == 0
    result = trace(monkeypatch, Machines(ACROSS), "proxy", "web-a0")
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "a2/calico-lab-proxy: has its host's own network, and sends as the host",
        "    next: lab why a2 HOST PROTO/PORT, or trace from a container on the network",
    ]


def by_reflector(state: str) -> Callable[[str, str], str]:
    """What hosts say whose only sessions are with the reflector a2, from what was said without."""

    def changed(name: str, text: str) -> str:
        lines = []
        for line in text.splitlines():
            if line.startswith("bgp Mesh_172_16_6_231"):
                lines.append(f"bgp Node_172_16_6_231 BGP      ---      up      15:30:55.123  {state}")
            elif not line.startswith("bgp "):
                lines.append(line.replace("[Mesh_172_16_6_218 ", "[Node_172_16_6_231 "))
        return "\n".join(lines)

    return changed


def test_a_route_is_told_by_a_reflector_and_not_by_the_next_hop(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = Machines(ACROSS, by_reflector("Established"))
    result = trace(monkeypatch, machines, "web-a0", "web-a1", reflectors=("a2",))
    assert "    from          BIRD, by BGP from a2: Established since 15:30:55\n" in result.output
    assert "    learnt        Node_172_16_6_231 at 15:54:59\n" in result.output
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("Connect", "because it has no BGP session with a2: Connect"),
        ("Established", "although its BGP session with a2 stands"),
    ],
)
def test_a_route_that_no_reflector_tells_of(state: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machines = Machines(HERE / "trace" / "session-down", by_reflector(state))
    result = trace(monkeypatch, machines, "web-a0", "web-a1", reflectors=("a2",))
    assert f"a0: has no route to 192.168.141.200, {why}\n" in result.output
    assert result.exit_code == 1


def test_a_route_into_a_tunnel_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    device = (
        '{"ifindex":40,"ifname":"vxlan.calico","flags":["UP"],"mtu":1450,"address":"66:0:0:0:0:1",'
        '"linkinfo":{"info_kind":"vxlan","info_data":{"id":4096}},"addr_info":[]}'
    )

    def tunnelled(name: str, text: str) -> str:
        return re.sub(r"^vxlan host \[\]$", f"vxlan host [{device}]", text, flags=re.MULTILINE).replace(
            "address host [", f"address host [{device},"
        )

    machines = Machines(HERE / "trace" / "session-down", tunnelled)
    result = trace(monkeypatch, machines, "web-a0", "web-a1")
    assert (
        "has no route to 192.168.141.200: Felix has not set the one into the tunnel to a1\n" in result.output
    )
    assert "journalctl -n 20 -u calico-lab-felix" in result.output


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("status 1\ntrace: somebody else traces on this host; try again in some seconds\n", "somebody else"),
        ("status 255\nConnection refused\n", "Connection refused"),
        ("PACKET: 2 08b6", "the answer broke off"),
        ("[facts]\naddress host [{}\ncomplete yes\n", "the answer cannot be read"),
    ],
)
def test_a_host_that_cannot_watch(said: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machines = Machines(ACROSS, lambda name, text: said if name == "a1.side.txt" else text)
    result = trace(monkeypatch, machines, "web-a0", "web-a1")
    assert result.exit_code == 1
    assert f"a1: trace: {told}" in result.output or told in result.output
    assert "next: lab --stack lab status" in result.output


def _changed_side(old: str, new: str) -> Callable[[str, str], str]:
    return lambda name, text: text.replace(old, new) if name == "a0.side.txt" else text


@pytest.mark.parametrize(
    ("pattern", "new", "said"),
    [
        (
            r'"lladdr":"ee:ee:ee:ee:ee:ee","state":\["\w+"\]',
            '"state":["FAILED"]',
            "nobody answers ARP for 169.254.1.1",
        ),
        (r"route /web-a0 .*", "route /web-a0 []", "it has no route to"),
        (r"address /web-a0 .*", "address /web-a0 []", "its interface of Calico is down or gone"),
        (r"nothing", "nothing", "the packet did not leave the container: no echo-request answered"),
    ],
)
def test_a_packet_that_does_not_leave_the_container(
    pattern: str, new: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(name: str, text: str) -> str:
        if name == "sent.txt":
            return "3 packets transmitted, 0 received, 100% packet loss"
        if name == "a0.side.txt":
            return re.sub(pattern, new, text[text.index("[facts]") :])
        return text

    result = trace(monkeypatch, Machines(ACROSS, change), "web-a0", "web-a1")
    assert result.exit_code == 1
    assert f"a0/web-a0: {said}" in result.output
    assert result.output.count("<-- lost here") == 1
    assert " 2  " not in result.output, "the way is told as far as the packet came"


@given(case=st.sampled_from([ACROSS, BY_PROGRAMS]), cut=st.floats(0, 1), part=st.text(max_size=30))
def test_an_answer_that_is_cut_or_garbled_is_an_error_and_no_crash(case: Path, cut: float, part: str) -> None:
    text = (case / "a0.side.txt").read_text()
    place = int(cut * (len(text) - len("complete yes\n")))
    assert (
        side.parse("a0", remote.Answer(0, text[:place], ""), "192.168.0.64").error == "the answer broke off"
    )
    garbled = f"{text[:place]}{part}{text[place + len(part) :]}"
    side.parse("a0", remote.Answer(0, garbled, ""), "192.168.0.64")


def test_the_longest_route_is_taken_and_the_cheapest_of_those() -> None:
    routes = [
        side.Route("default", "unicast", "10.0.0.1", "eth0", "boot"),
        side.Route("192.168.0.0/16", "unreachable", None, None, "kernel", 65535),
        side.Route("192.168.7.0/26", "unicast", "10.0.0.3", "eth0", "bird", 32),
        side.Route("192.168.7.0/26", "blackhole", None, None, "bird"),
        side.Route("192.168.7.9", "unicast", None, "cali1", "boot"),
    ]
    seen = side.Namespace(routes=routes)
    for address, route in {"192.168.7.9": 4, "192.168.7.8": 3, "192.168.8.1": 1, "10.9.9.9": 0}.items():
        assert seen.route(address) == routes[route]
    assert side.Namespace().route("10.0.0.1") is None


@pytest.mark.parametrize(
    ("flow", "text", "answered", "words"),
    [
        ("icmp", "3 packets transmitted, 2 received, 33% packet loss", True, "2 of 3 answered"),
        ("icmp", "3 packets transmitted, 0 received, 100% packet loss", False, "no echo-request answered"),
        (
            "icmp",
            "From 10.0.0.1 icmp_seq=1 Destination Host Unreachable\n3 packets transmitted, 0 received, +1",
            False,
            "10.0.0.1 says: Destination Host Unreachable",
        ),
        ("tcp/80", "connected\n", True, "connected"),
        ("tcp/80", "bash: connect: Connection refused\nstatus 1", True, "Connection refused"),
        ("tcp/80", "bash: connect: No route to host\nstatus 1", False, "No route to host"),
        ("tcp/80", "status 124", False, "no answer within 3 s"),
        ("udp/53", "status 142", False, "no answer within 1 s, nor does UDP owe one"),
        ("udp/53", "answered", True, "answered"),
    ],
)
def test_outcomes(flow: str, text: str, answered: bool, words: str) -> None:
    assert walk.outcome(walk.flow(flow), remote.Answer(0, text, "")) == walk.Outcome(answered, words)


def test_sending_that_fails() -> None:
    said = remote.Answer(1, "", "no such container")
    assert walk.outcome(walk.flow("icmp"), said) == walk.Outcome(False, "no such container", failed=True)


def test_a_packet_that_was_never_sent_is_not_a_lost_one(monkeypatch: pytest.MonkeyPatch) -> None:
    why = "ping is not installed: apt-get install iputils-ping"

    def changed(name: str, text: str) -> str:
        if name == "sent.txt":
            return f"status 1\n{why}\n"
        return re.sub(r"^.*calico-lab-trace:(request|answer).*\n", "", text, flags=re.M)

    result = trace(monkeypatch, Machines(ACROSS, changed), "web-a0", "web-a1", "icmp")
    assert result.exit_code == 1
    assert f"nothing was sent: {why}" in result.output
    assert "did not leave" not in result.output


def test_a_host_without_ping_says_so(tmp_path: Path) -> None:
    host = PretendHost(tmp_path)
    host.program("docker", "echo 1")
    # What the machine of the tests has stands in no folder of this path.
    for sends in walk.SEND, firewall_trace.SEND:
        done = host.run(
            sends,
            {"CONTAINER": "c", "TARGET": "192.0.2.1", "DESTINATION": "192.0.2.1", "PROTOCOL": "icmp"}
            | {"PORT": "", "DURATION": "1"},
            instead={"set -eu": f"set -eu; PATH={host.path('/programs')}"},
        )
        assert done.returncode == 1
        assert done.stderr == "ping is not installed: apt-get install iputils-ping\n"


def test_packets_that_are_not_ours_are_left_out() -> None:
    text = (ACROSS / "a0.side.txt").read_text()
    stray = text.replace("08b6aa16", "0")
    assert packets.read("") == {}
    assert packets.read(re.sub(r"^.*calico-lab-trace:(request|answer).*\n", "", stray, flags=re.M)) == {}
    assert set(packets.read(text)) == {"request", "answer"}


@pytest.mark.parametrize(
    ("rules", "passes", "by"),
    [
        ([("cali-fw-cali1", "ACCEPT", "-m conntrack -j ACCEPT")], True, "a connection that it knows"),
        (
            [("cali-fw-cali1", "DROP", '-m comment --comment "Drop if no profiles matched" -j DROP')],
            False,
            "Drop if no profiles matched",
        ),
        (
            [
                ("cali-fw-cali1", "JUMP", "-j cali-po-a"),
                ("cali-fw-cali1", "JUMP", "-j cali-po-b"),
                ("cali-fw-cali1", "DROP", '-m comment --comment "End of tier default. Drop" -j DROP'),
            ],
            False,
            "no rule of policy one, cali-po-b lets it pass",
        ),
        (
            [
                ("cali-fw-cali1", "JUMP", "-j cali-po-a"),
                ("cali-po-a", "CONTINUE", "-p tcp -j MARK --set-xmark 0x10000/0x10000"),
                ("cali-fw-cali1", "RETURN", "-m mark --mark 0x10000/0x10000 -j RETURN"),
            ],
            True,
            "policy one",
        ),
    ],
)
def test_what_felix_decides(rules: list[tuple[str, str, str]], passes: bool, by: str) -> None:
    steps = [Step("filter", *rule) for rule in rules]
    decided = felix.decision(steps, "egress", {"cali-po-a": "policy one"})
    assert decided
    assert (decided.passes, decided.by) == (passes, by)
    assert felix.decision(steps, "ingress", {}) is None


def _dump(counts: Mapping[str, int], policies: tuple[str, ...] = ("default.a",)) -> list[str]:
    """What Felix says of a program with a policy of three rules, or of one that asks the profile."""

    def rule(name: str, action: str) -> list[str]:
        # Protocol buffers vary the spaces in their text.
        text = f'action:"{action}"{" " * (1 + sum(counts.values()) % 2)}dst_net:"{name}"'
        return [f'// Start of rule {text} rule_id:"{name}"', f"// count = {counts.get(name, 0)}"]

    lines = ["IfaceName: cali1", "Hook: tc egress", "Error: ", "Policy Info:"]
    for policy in policies:
        lines += ["// Start of tier default", f"// Start of policy {policy}", *rule("log", "log")]
        lines += [*rule("deny", "deny"), *rule("allow", "allow"), f"// End of policy {policy}"]
    return [*lines, "// End of tier default: deny", *rule("profile", "allow")]


@pytest.mark.parametrize(
    ("counted", "dropped", "came_out", "passes", "by"),
    [
        ({"allow": 1}, 0, True, True, "policy default.a"),
        ({"log": 1, "allow": 1}, 0, True, True, "policy default.a"),
        ({"log": 3, "deny": 3}, 3, False, False, "policy default.a"),
        ({"deny": 1, "allow": 1}, 1, True, True, "policy default.a"),
        ({"deny": 1, "allow": 1}, 1, False, False, "policy default.a"),
        ({}, 3, False, False, "no rule of policy default.a lets it pass"),
        ({"profile": 1}, 0, True, True, "profile netv"),
        ({}, 0, True, True, "a connection that it knows"),
        ({"allow": 1}, 0, False, True, "policy default.a"),
    ],
)
def test_what_programs_decide(
    counted: Mapping[str, int], dropped: int, came_out: bool, passes: bool, by: str
) -> None:
    earlier = {"allow": 7, "deny": 4, "log": 11, "profile": 2}
    later = {name: count + counted.get(name, 0) for name, count in earlier.items()}
    before = programs.read(_dump(earlier), {"ingress": 4})["ingress"]
    after = programs.read(_dump(later), {"ingress": 4 + dropped})["ingress"]
    decided = programs.decision(before, after, ["netv"], came_out=came_out)
    assert decided
    assert (decided.passes, decided.by) == (passes, by)
    assert programs.decision(before, before, ["netv"], came_out=False) is None, "it was not asked"


def test_what_a_tunnel_brings_comes_in_although_it_is_addressed_to_another_machine() -> None:
    seen = [
        "vxlan.calico P   IP (tos 0x0, ttl 64, id 11700, offset 0, flags [none], proto ICMP (1), length 84)",
        "    192.168.0.100 > 192.168.0.101: ICMP echo request, id 45591, seq 1, length 64",
    ]
    assert taps.passages(seen, {}, "192.168.0.101")["request"].came == "vxlan.calico"


def test_programs_without_a_policy_ask_the_profile() -> None:
    before, after = (programs.read(_dump({"profile": count}, ()), {})["ingress"] for count in (0, 1))
    decided = programs.decision(before, after, ["netv"], came_out=True)
    assert decided
    assert decided.chains == ("tc egress of cali1", "profile netv")


def test_help_says_what_it_does_to_a_host() -> None:
    # Lines are broken at hyphens too.
    text = "".join(CliRunner().invoke(command.main, ["trace", "--help"]).output.split())
    assert "tablecalico-lab-trace" in text
    assert "goeswiththeprocessthatmadeit" in text
