"""`lab trace`: what hosts of a real lab answered, and what the command prints.

Each folder of `trace/` is a case: `<host>.status.txt` and `<host>.path.txt` are answers of hosts, `sent.txt`
is what the sender got, and `output.txt` is the command, its exit code and its output.
"""

import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from components.hosts import remote
from lab import __main__ as command
from tests.unit.diagnosis import lab_cases
from workspace import outputs as stack

HERE = Path(__file__).parent
CASES = sorted((HERE / "trace").iterdir())
ACROSS = HERE / "trace" / "across-hosts"
_OUTPUT = re.compile(r"\$ lab trace (?P<ask>.*?) +# exit (?P<exit>\d)\n(?P<text>.*)", re.DOTALL)


class Hosts:
    """Takes the place of the lab's hosts: gives recorded answers, and records what they are asked."""

    def __init__(self, case: Path, changes: Callable[[str, str], str] = lambda name, text: text) -> None:
        self.case = case
        self.changes = changes
        self.watched: dict[str, Mapping[str, str]] = {}
        self.sent: Mapping[str, str] | None = None
        self.over: list[threading.Event] = []

    def answer(self, name: str) -> remote.Answer:
        """A recorded answer, changed by a test."""
        text = self.changes(name, (self.case / name).read_text())
        if failed := re.match(r"status (\d+)\n(.*)\n", text):
            return remote.Answer(int(failed[1]), text[failed.end() :], failed[2])
        return remote.Answer(0, text, "")

    def ask(
        self, ssh: Mapping[str, str], script: str, variables: Mapping[str, Mapping[str, str]]
    ) -> dict[str, remote.Answer]:
        """Takes the place of `remote.ask`."""
        return {host: self.answer(f"{host}.status.txt") for host in ssh}

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
        """Takes the place of `remote.watch`."""
        host = ssh.rsplit(maxsplit=1)[-1]
        self.watched[host] = variables
        self.over.append(over)
        ready()
        assert over.wait(5), "nothing ends the watch"
        return self.answer(f"{host}.path.txt")

    def run(self, ssh: str, script: str, variables: Mapping[str, str], seconds: float) -> remote.Answer:
        """Takes the place of `remote.run`."""
        assert self.watched
        assert not any(over.is_set() for over in self.over), "it is sent while all hosts watch"
        self.sent = variables
        return self.answer("sent.txt")


def trace(
    monkeypatch: pytest.MonkeyPatch, hosts: Hosts, *arguments: str, reflectors: tuple[str, ...] = ()
) -> Result:
    dataplane = "ebpf" if hosts.case.name.startswith("ebpf-") else "iptables"
    outputs = replace(lab_cases.outputs(), dataplane=dataplane, route_reflectors=reflectors)
    monkeypatch.setattr(stack, "read", lambda name: outputs)
    for name in ("ask", "watch", "run"):
        monkeypatch.setattr(remote, name, getattr(hosts, name))
    return CliRunner().invoke(command.main, ["trace", *arguments])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_trace_output(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _OUTPUT.fullmatch((case / "output.txt").read_text())
    assert expected
    result = trace(monkeypatch, Hosts(case), *expected["ask"].split())
    assert result.output == expected["text"]
    assert result.exit_code == int(expected["exit"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_trace_json_has_what_text_has(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _OUTPUT.fullmatch((case / "output.txt").read_text())
    assert expected
    result = trace(monkeypatch, Hosts(case), "--json", *expected["ask"].split())
    document = json.loads(result.output)
    assert result.exit_code == int(expected["exit"])
    assert document["arrived"] == (result.exit_code == 0)
    parts = [
        value for hop in document["hops"] for value in (hop["where"], hop["what"], *hop["facts"].values())
    ]
    parts += list((document["finding"] or {}).values())
    assert [part for part in parts if part not in expected["text"]] == []
    assert [hop["seen"] for hop in document["hops"]].count(False) <= 1


def test_trace_asks_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(ACROSS)
    trace(monkeypatch, hosts, "web-a0", "web-a1")
    assert {host: asked["CONTAINERS"] for host, asked in hosts.watched.items()} == {
        "a0": "web-a0",
        "a1": "web-a1",
    }
    assert {asked["MATCH"] for asked in hosts.watched.values()} == {"icmp type echo-request"}
    assert {asked["SOURCES"] for asked in hosts.watched.values()} == {hosts.watched["a0"]["SOURCE"]}
    assert hosts.sent == {
        "CONTAINER": "web-a0",
        "DESTINATION": hosts.watched["a0"]["TARGET"],
        "PROTOCOL": "icmp",
        "PORT": "",
        "DURATION": "0",
    }


def test_trace_asks_for_source_after_nat(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(ACROSS)
    trace(monkeypatch, hosts, "web-a0", "a1")
    assert hosts.watched["a1"]["SOURCES"] == f"{hosts.watched['a0']['SOURCE']}, 172.16.6.44"


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
def test_trace_wrong_usage(ask: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(ACROSS)
    result = trace(monkeypatch, hosts, *ask)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert hosts.sent is None


def test_trace_ambiguous_name(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(ACROSS, lambda name, text: text.replace("/web-a1", "/web").replace("/web-a0", "/web"))
    result = trace(monkeypatch, hosts, "web", "sshbox")
    assert result.exit_code == 2
    assert "web: may be any of a0/web, a1/web" in " ".join(result.output.split())
    trace(monkeypatch, hosts, "a1/web", "a0/web")
    assert hosts.sent
    assert hosts.sent["CONTAINER"] == "web"


def test_trace_by_address(monkeypatch: pytest.MonkeyPatch) -> None:
    result = trace(monkeypatch, Hosts(ACROSS), "192.168.0.101", "172.16.6.218")
    assert result.output.startswith("icmp from a0/calico-lab-sshbox (192.168.0.101) to a1 (172.16.6.218)\n")


def test_trace_exited_container(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(ACROSS, lambda name, text: text.replace('"running"', '"exited"'))
    result = trace(monkeypatch, hosts, "web-a0", "web-a1")
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "a0/web-a0: is exited, and has no network without a process",
        "    next: ssh -F .state/ssh/lab/config a0 docker start web-a0",
    ]


def test_trace_paused_container(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(ACROSS, lambda name, text: text.replace('"running"', '"paused"'))
    result = trace(monkeypatch, hosts, "web-a0", "web-a1")
    assert result.output.splitlines() == [
        "a0/web-a0: is paused, and neither sends nor answers",
        "    next: ssh -F .state/ssh/lab/config a0 docker unpause web-a0",
    ]


def test_trace_host_network_container(monkeypatch: pytest.MonkeyPatch) -> None:
    as_host = (
        '{"name":"/on-a1","image":"i","labels":{},"state":"running","health":null,"networks":{"host":{}}}'
    )
    hosts = Hosts(
        HERE / "trace" / "to-other-host",
        lambda name, text: f"container {as_host}\n{text}" if name == "a1.status.txt" else text,
    )
    result = trace(monkeypatch, hosts, "web-a0", "on-a1")
    assert result.output.startswith("icmp from a0/web-a0 (192.168.0.64) to a1 (172.16.6.218)\n")
    assert result.exit_code == 0
    result = trace(monkeypatch, Hosts(ACROSS), "proxy", "web-a0")
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "a2/calico-lab-proxy: has its host's own network, and sends as the host",
        "    next: lab why a2 HOST PROTO/PORT, or trace from a container on the network",
    ]


def by_reflector(state: str) -> Callable[[str, str], str]:
    """Changes recorded answers: the only BGP sessions are with the route reflector a2."""

    def changed(name: str, text: str) -> str:
        lines = []
        for line in text.splitlines():
            if line.startswith("bgp Mesh_172_16_6_231"):
                lines.append(f"bgp Node_172_16_6_231 BGP      ---      up      15:30:55.123  {state}")
            elif not line.startswith("bgp "):
                lines.append(line.replace("[Mesh_172_16_6_218 ", "[Node_172_16_6_231 "))
        return "\n".join(lines)

    return changed


def test_trace_route_from_reflector(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(ACROSS, by_reflector("Established"))
    result = trace(monkeypatch, hosts, "web-a0", "web-a1", reflectors=("a2",))
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
def test_trace_no_route_from_reflector(state: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(HERE / "trace" / "session-down", by_reflector(state))
    result = trace(monkeypatch, hosts, "web-a0", "web-a1", reflectors=("a2",))
    assert f"a0: has no route to 192.168.141.200, {why}\n" in result.output
    assert result.exit_code == 1


def test_trace_no_route_into_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    device = (
        '{"ifindex":40,"ifname":"vxlan.calico","flags":["UP"],"mtu":1450,"address":"66:0:0:0:0:1",'
        '"linkinfo":{"info_kind":"vxlan","info_data":{"id":4096}},"addr_info":[]}'
    )

    def tunnelled(name: str, text: str) -> str:
        return re.sub(r"^vxlan host \[\]$", f"vxlan host [{device}]", text, flags=re.MULTILINE).replace(
            "address host [", f"address host [{device},"
        )

    hosts = Hosts(HERE / "trace" / "session-down", tunnelled)
    result = trace(monkeypatch, hosts, "web-a0", "web-a1")
    assert (
        "has no route to 192.168.141.200: Felix has not set the one into the tunnel to a1\n" in result.output
    )
    assert "journalctl -n 20 -u calico-lab-felix" in result.output


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (
            "status 1\ntrace: another trace runs on this host; try again in some seconds\n",
            "another trace runs",
        ),
        ("status 255\nConnection refused\n", "Connection refused"),
        ("PACKET: 2 08b6", "the answer broke off"),
        ("[facts]\naddress host [{}\ncomplete yes\n", "the answer cannot be read"),
    ],
)
def test_trace_host_that_cannot_watch(answer: str, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(ACROSS, lambda name, text: answer if name == "a1.path.txt" else text)
    result = trace(monkeypatch, hosts, "web-a0", "web-a1")
    assert result.exit_code == 1
    assert error in result.output
    assert "next: lab --stack lab status" in result.output


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
def test_trace_packet_does_not_leave_container(
    pattern: str, new: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(name: str, text: str) -> str:
        if name == "sent.txt":
            return "3 packets transmitted, 0 received, 100% packet loss"
        if name == "a0.path.txt":
            return re.sub(pattern, new, text[text.index("[facts]") :])
        return text

    result = trace(monkeypatch, Hosts(ACROSS, change), "web-a0", "web-a1")
    assert result.exit_code == 1
    assert f"a0/web-a0: {said}" in result.output
    assert result.output.count("<-- lost here") == 1
    assert " 2  " not in result.output, "the way is told as far as the packet came"


def test_trace_nothing_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    why = "ping is not installed: apt-get install iputils-ping"

    def changed(name: str, text: str) -> str:
        if name == "sent.txt":
            return f"status 1\n{why}\n"
        return re.sub(r"^.*calico-lab-trace:(request|answer).*\n", "", text, flags=re.M)

    result = trace(monkeypatch, Hosts(ACROSS, changed), "web-a0", "web-a1", "icmp")
    assert result.exit_code == 1
    assert f"nothing was sent: {why}" in result.output
    assert "did not leave" not in result.output


def test_trace_help_names_table() -> None:
    # Lines are broken at hyphens too.
    text = "".join(CliRunner().invoke(command.main, ["trace", "--help"]).output.split())
    assert "tablecalico-lab-trace" in text
    assert "goeswiththeprocessthatmadeit" in text
