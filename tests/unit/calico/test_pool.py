"""Conflicts of a host with the pool, and the trial of the `unreachable` route for the pool.

The host's routes and neighbours are a kernel's own, in a namespace; its connections and timers are pretended.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from components.calico import component as calico
from components.calico import settings
from components.hosts.remote import Answer
from tests.unit.pretend_host import PretendHost

HERE = Path(calico.__file__).with_name("scripts")
CIDR = "192.168.0.0/16"
HOST = """
link add eth0 type bridge
address add 10.0.0.11/24 dev eth0
link set eth0 up
route add default via 10.0.0.1
route add 192.0.0.0/8 via 10.0.0.2
neigh add 10.0.0.1 lladdr 02:42:0a:00:00:01 dev eth0
"""
LAB_IS_UP = """
link add cali0123456789a type bridge
link add vxlan.calico type bridge
link set cali0123456789a up
link set vxlan.calico up
route add unreachable 192.168.0.0/16 proto kernel metric 65535
route add blackhole 192.168.0.0/26 proto bird
route add 192.168.0.1 dev cali0123456789a scope link
route add 192.168.0.64/26 via 10.0.0.12 dev eth0 proto bird
route add 192.168.0.128/26 via 192.168.0.129 dev vxlan.calico proto 80 onlink
neigh add 192.168.0.1 lladdr 02:42:0a:00:00:02 dev cali0123456789a
neigh add 192.168.0.129 lladdr 02:42:0a:00:00:03 dev vxlan.calico
"""
OPERATOR = "172.20.0.5 52011 10.0.0.11 22"
PEER = "peer of a connection"
SSH = "tcp 0 0 10.0.0.11:22 172.20.0.5:52011"
CHECK = {
    "HOST": "a0",
    "ADDRESS": "10.0.0.11",
    "KINDS": "",
    "DATAPLANE": "iptables",
    "MTU": "",
    "OVERHEAD": "0",
    "NETWORK": "",
    "LEAVING": "",
    "CIDR": CIDR,
}


class Machine(PretendHost):
    """A host with a network namespace of its own."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        user = [] if os.geteuid() == 0 else ["--user"]
        mapped = [*user, "--map-root-user"] if user else []
        self.process = subprocess.Popen(
            ["unshare", *mapped, "--net", "sh", "-c", "echo ready; exec sleep 600"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"
        keep = ["--preserve-credentials"] if user else []
        self._enter = ["nsenter", "--target", str(self.process.pid), *user, *keep, "--net"]
        self.program("ip", f'exec {" ".join(self._enter)} {shutil.which("ip")} "$@"')
        self.ip(HOST)

    def ip(self, commands: str) -> str:
        """Have the kernel do what the lines say."""
        done = subprocess.run(
            [*self._enter, "ip", "-batch", "-"], input=commands, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refuses(
        self,
        *,
        cidr: str = CIDR,
        operator: str = OPERATOR,
        connections: str = SSH,
        resolvers: str = "",
        uplinks: str = "",
    ) -> str:
        """What the host has against a network of some addresses."""
        self.program("ss", f"cat <<'END'\n{connections}\nEND")
        files = {"/etc/resolv.conf": resolvers, "/run/systemd/resolve/resolv.conf": uplinks}
        for path, text in files.items():
            self.write(path, text)
        done = self.run(
            HERE / "check-settings.sh",
            {**CHECK, "CIDR": cidr, "SSH_CONNECTION": operator},
            instead={path: str(self.path(path)) for path in files},
        )
        assert done.returncode == (3 if done.stderr else 0), done.stderr
        return done.stderr

    def finds(self, **says: str) -> str:
        """What of the host lies in a network, as the refusal has it."""
        refusal = self.refuses(**says)
        start = f"cidr a0: network.cidr {says.get('cidr', CIDR)} contains "
        assert not refusal or refusal.startswith(start), refusal
        return refusal.removeprefix(start).partition(", which this host could no longer reach")[0]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.process.kill()
    machine.process.wait()


def test_conflicts_none(machine: Machine) -> None:
    assert machine.finds(resolvers="search lab\nnameserver 10.0.0.1\n# nameserver 192.168.1.1\n") == ""


def test_conflicts_name_the_next_step(machine: Machine) -> None:
    assert machine.refuses(operator="192.168.1.20 52011 10.0.0.11 22") == (
        "cidr a0: network.cidr 192.168.0.0/16 contains 192.168.1.20 (operator), which this host could "
        "no longer reach; give network.cidr, and the addresses in it, another private network\n"
    )


@pytest.mark.parametrize(
    ("kernel", "says", "found"),
    [
        ("", {"resolvers": "nameserver 192.168.1.1\n"}, "192.168.1.1 (resolver)"),
        (
            "",
            {"resolvers": "nameserver 127.0.0.53\n", "uplinks": "nameserver 192.168.1.1\n"},
            "192.168.1.1 (resolver)",
        ),
        ("", {"connections": f"{SSH}\ntcp 0 0 10.0.0.11:443 192.168.1.30:4100"}, f"192.168.1.30 ({PEER})"),
        (
            "",
            {"connections": "tcp 0 0 [::ffff:10.0.0.11]:22 [::ffff:192.168.1.30]:4100"},
            f"192.168.1.30 ({PEER})",
        ),
        ("", {"connections": "udp 0 0 10.0.0.11%eth0:123 192.168.1.30:123"}, f"192.168.1.30 ({PEER})"),
        ("", {"connections": "tcp 0 0 [fd00::1]:22 [192:168::30]:4", "operator": "fe80::1 1 fe80::2 2"}, ""),
        ("", {"operator": ""}, ""),
        ("route add 192.168.122.0/24 dev eth0", {}, "192.168.122.0/24 (route by eth0)"),
        ("route add 192.168.7.0/24 via 10.0.0.1 proto static", {}, "192.168.7.0/24 (route by eth0)"),
        ("route add 172.30.0.0/16 via 192.168.1.1 dev eth0 onlink", {}, "192.168.1.1 (gateway)"),
        (
            "route add 172.30.0.0/16 nexthop via 10.0.0.1 dev eth0 nexthop via 192.168.1.1 dev eth0 onlink",
            {},
            "192.168.1.1 (gateway)",
        ),
        # A neighbour on a wider network than the lab's.
        ("neigh add 192.168.1.40 lladdr 02:42:0a:00:00:09 dev eth0", {}, "192.168.1.40 (neighbour)"),
        ("neigh add 192.168.1.40 nud failed dev eth0", {}, ""),
        (
            "neigh add 192.168.1.20 lladdr 02:42:0a:00:00:09 dev eth0",
            {
                "operator": "192.168.1.20 52011 10.0.0.11 22",
                "connections": "tcp 0 0 10.0.0.11:22 192.168.1.20:52\ntcp 0 0 10.0.0.11:22 192.168.1.20:53",
            },
            f"192.168.1.20 (neighbour, operator, {PEER})",
        ),
        (
            "",
            {"connections": "\n".join(f"tcp 0 0 10.0.0.11:80 192.168.1.{n}:41" for n in range(11, 18))},
            ", ".join(f"192.168.1.{last} ({PEER})" for last in range(11, 16)) + " and 2 more",
        ),
        ("", {"cidr": "172.20.0.0/29"}, f"172.20.0.5 (operator, {PEER})"),
        ("", {"cidr": "172.20.0.8/29"}, ""),
        ("", {"cidr": "172.20.0.5/32"}, f"172.20.0.5 (operator, {PEER})"),
    ],
)  # fmt: skip
def test_conflicts_named(machine: Machine, kernel: str, says: Mapping[str, str], found: str) -> None:
    machine.ip(kernel)
    assert machine.finds(**says) == found


def test_conflicts_of_a_running_lab(machine: Machine) -> None:
    machine.ip(LAB_IS_UP)
    containers = ("192.168.0.1", "192.168.0.70", "192.168.0.130")
    connections = "\n".join([SSH, *(f"tcp 0 0 10.0.0.11:4100 {address}:8888" for address in containers)])
    assert machine.finds(connections=connections) == ""
    # Nor in that of a smaller or a larger network.
    for cidr in "192.168.0.0/17", "192.168.0.0/15":
        assert machine.finds(connections=connections, cidr=cidr) == ""
    others = f"{connections}\ntcp 0 0 10.0.0.11:4100 192.168.1.30:8888"
    assert machine.finds(connections=others) == f"192.168.1.30 ({PEER})"


# ---- the trial


def step(machine: Machine, name: str, cidr: str = CIDR) -> int:
    variables = {"STEP": name, "CIDR": cidr, "SECONDS_ALLOWED": "15"}
    return machine.run(HERE / "try-route.sh", variables).returncode


def tried(machine: Machine) -> list[str]:
    """The networks that the kernel takes for unreachable."""
    return [line.split()[1] for line in machine.ip("route show type unreachable").splitlines()]


def armed(machine: Machine) -> str:
    """What the last timer of systemd does when it fires."""
    [*_, call] = [call for call in machine.calls if call.startswith("systemd-run ")]
    assert "--on-active=15" in call
    return call.partition("AccuracySec=100ms ")[2]


@pytest.fixture
def timers(machine: Machine) -> Machine:
    """A host that has systemd's timers, which never fire."""
    machine.program("systemd-run")
    return machine


def test_try_route_script_confirmed(timers: Machine) -> None:
    assert step(timers, "install") == 0
    assert tried(timers) == [CIDR]
    installed = next(index for index, call in enumerate(timers.calls) if call.startswith("ip route add"))
    assert timers.calls.index(next(call for call in timers.calls if "systemd-run" in call)) < installed
    assert step(timers, "confirm") == 0
    assert tried(timers) == []
    assert timers.calls[-1] == "systemctl stop calico-lab-try-route.timer"


def test_try_route_script_timer_removes_the_route(timers: Machine) -> None:
    step(timers, "install")
    program, _, arguments = armed(timers).partition(" ")
    assert Path(program).name == "ip"
    timers.ip(arguments)
    assert tried(timers) == []
    stopped = timers.calls.count("systemctl stop calico-lab-try-route.timer")
    assert step(timers, "confirm") == 3
    assert timers.calls.count("systemctl stop calico-lab-try-route.timer") == stopped


def test_try_route_script_early_confirmation(timers: Machine) -> None:
    assert step(timers, "confirm") == 3
    assert not [call for call in timers.calls if call.startswith("systemctl stop")]


def test_try_route_script_without_timer(timers: Machine) -> None:
    timers.program("systemd-run", "exit 1")
    assert step(timers, "install") != 0
    assert tried(timers) == []


def test_try_route_script_after_interruption(timers: Machine) -> None:
    step(timers, "install", "10.1.0.0/16")
    step(timers, "install")
    assert tried(timers) == [CIDR]


def test_try_route_script_keeps_an_existing_route(timers: Machine) -> None:
    timers.ip(LAB_IS_UP)
    step(timers, "install")
    assert tried(timers) == [CIDR, CIDR]
    step(timers, "confirm")
    assert tried(timers) == [CIDR]


# ---- who tries


class Answers:
    """A host that answers each connection in its turn, the last answer for ever."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        self.answers = list(answers)
        self.steps: list[str] = []

    def run(self, ssh: str, _script: str, variables: Mapping[str, str], _seconds: float) -> Answer:
        """Stand in for `shell.run`."""
        assert (ssh, variables["CIDR"]) == ("ssh a0", CIDR)
        self.steps.append(variables["STEP"])
        status, error = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Answer(status, "", error)


def try_route(monkeypatch: pytest.MonkeyPatch, answers: Answers) -> str:
    """Try a route on a host; a wait of half a second takes ten."""
    now = iter(range(0, 10000, 10))
    monkeypatch.setattr(settings, "run", answers.run)
    monkeypatch.setattr("components.calico.settings.time.monotonic", lambda: next(now))
    monkeypatch.setattr("components.calico.settings.time.sleep", lambda _: None)
    refusal = settings.try_route("a0", "ssh a0", CIDR)
    return str(refusal) if refusal else ""


@pytest.mark.parametrize(
    ("answers", "steps"),
    [
        ([(0, ""), (0, "")], ["install", "confirm"]),
        ([(0, ""), (255, "kex_exchange_identification: reset"), (0, "")], ["install", "confirm", "confirm"]),
        # The answer was lost, and the connection that confirms comes through.
        ([(124, "no answer within 15 s"), (0, "")], ["install", "confirm"]),
    ],
)
def test_try_route_confirmed(
    monkeypatch: pytest.MonkeyPatch, answers: list[tuple[int, str]], steps: list[str]
) -> None:
    host = Answers(*answers)
    assert try_route(monkeypatch, host) == ""
    assert host.steps == steps


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (
            [(124, "no answer within 15 s"), (124, "no answer within 5 s"), (3, "")],
            "came through (no answer within 15 s); the host has removed the route again (seen). ",
        ),
        (
            [(0, ""), (3, "")],
            "came through (none within 15 s); the host has removed the route again (seen). ",
        ),
        ([(0, ""), (255, "timed out")], "came through (timed out); look at it from its console. "),
    ],
)
def test_try_route_not_confirmed(
    monkeypatch: pytest.MonkeyPatch, answers: list[tuple[int, str]], said: str
) -> None:
    refusal = try_route(monkeypatch, Answers(*answers))
    start = "network: a0: with network.cidr 192.168.0.0/16 made unreachable, as the network does, no new SSH "
    assert refusal.startswith(start)
    assert said in refusal
    assert refusal.endswith(
        "give network.cidr, and the addresses in it, another private network. Nothing was changed"
    )


def test_try_route_host_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Answers((1, "systemd-run: not found"), (0, ""))
    assert try_route(monkeypatch, host) == (
        "network: a0: the route to 192.168.0.0/16 cannot be tried: systemd-run: not found. "
        "Nothing was changed"
    )
    assert host.steps == ["install"]
