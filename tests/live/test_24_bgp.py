"""BGP resources that an operator writes reach BIRD: an external peer, filters, another port.

The visitor is the external router. Calico's templates are for Calico's own BIRD; the lab rewrites them.
"""

from collections.abc import Callable, Iterator

import pytest

from bench.guests import Guest
from components.hosts import remote
from tests.live import calico
from tests.live.look import healthy
from tests.live.program import Program
from tests.live.waiting import eventually
from workspace.outputs import Outputs

NAME = "calico-lab-test"
PORT = 1790
SSH_BOX = "192.168.0.101"
"""It is outside its host's block, so that it is told of by itself."""
_ROUTER = """\
router id {address};
protocol device {{ }}
protocol direct {{ ipv4; }}
protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}
protocol static {{ ipv4; route 10.99.1.0/24 blackhole; route 10.98.1.0/24 blackhole; }}
template bgp host {{
  local {address} as 64999;
  multihop;
  ipv4 {{ import all; export where source = RTS_STATIC; }};
}}
"""
_START = """\
printf %s "$CONFIG" >/run/router.conf
exec bird -c /run/router.conf -s /run/router.ctl -P /run/router.pid
"""
_ASK = "birdc -s /run/router.ctl"
_OWN = "birdc -s /run/calico/bird.ctl"


@pytest.fixture
def lab_is_healthy(program: Program) -> Callable[[], None]:
    """A check that fails while `lab status` has findings."""

    def look() -> None:
        healthy(program)

    return look


@pytest.fixture
def router(outputs: Outputs) -> Iterator[str]:
    """A router with a session for each host, and the command that reaches it."""
    sessions = [
        f"protocol bgp {host} from host {{ neighbor {address} as 64512; }}\n"
        for host, address in outputs.hosts.items()
    ]
    ssh = outputs.ssh["visitor"]
    here = remote.run(ssh, "hostname -I").text.split()[0]
    text = "".join([_ROUTER.format(address=here), *sessions])
    started = remote.run(ssh, _START, {"CONFIG": text})
    assert started.status == 0, started.error
    try:
        calico.apply(outputs, filters())
        calico.apply(outputs, peer(here))
        yield ssh
    finally:
        for kind in ("bgppeer", "bgpfilter"):
            calico.calicoctl(outputs, f"delete {kind} {NAME} --skip-not-exists")
        remote.run(ssh, f"{_ASK} down; rm -f /run/router.conf")


def filters() -> dict[str, object]:
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "BGPFilter",
        "metadata": {"name": NAME},
        "spec": {
            "importV4": [{"action": "Reject", "matchOperator": "NotIn", "cidr": "10.99.0.0/16"}],
            "exportV4": [{"action": "Reject", "matchOperator": "Equal", "cidr": f"{SSH_BOX}/32"}],
        },
    }


def peer(address: str) -> dict[str, object]:
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "BGPPeer",
        "metadata": {"name": NAME},
        "spec": {
            "peerIP": address,
            "asNumber": 64999,
            "filters": [NAME],
            "nextHopMode": "Keep",
            "maxRestartTime": "60s",
            "numAllowedLocalASNumbers": 2,
        },
    }


def test_bgp_external_router(outputs: Outputs, guest: dict[str, Guest], router: str) -> None:
    def told() -> None:
        seen = remote.run(router, f"{_ASK} show protocols").text
        assert seen.count("Established") == len(outputs.hosts), seen
        routes = {host: remote.run(outputs.ssh[host], "ip route").text for host in outputs.hosts}
        assert all("10.99.1.0/24 via" in text for text in routes.values()), routes

    eventually(told, seconds=30)
    for host in outputs.hosts:
        routes = remote.run(outputs.ssh[host], "ip route").text
        assert "10.98.1.0/24" not in routes, f"{host}: the filter for what comes in is passed by"
    routes = remote.run(router, "ip route").text
    assert f"{SSH_BOX} " not in routes
    for host, one in guest.items():
        way = remote.run(router, f"ip route get {one.address}").text
        assert f" via {outputs.hosts[host]} " in way, "the next hop is not the host that has the block"
        assert "2 received" in remote.run(router, f"ping -c 2 -i 0.2 -W 2 {one.address}").text, routes


@pytest.fixture
def other_port(outputs: Outputs) -> Iterator[str]:
    """A host whose BIRD listens at another port; all listen at their hosts' addresses alone."""
    host = next(iter(outputs.hosts))
    document = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "BGPConfiguration",
        "metadata": {"name": f"node.{host}"},
        "spec": {"listenPort": PORT},
    }
    calico.apply(outputs, document)
    calico.calicoctl(outputs, """patch bgpconfiguration default --patch={"spec":{"bindMode":"NodeIP"}}""")
    try:
        yield host
    finally:
        calico.calicoctl(outputs, """patch bgpconfiguration default --patch={"spec":{"bindMode":null}}""")
        calico.calicoctl(outputs, f"delete bgpconfiguration node.{host}")


def listens(outputs: Outputs, host: str) -> str:
    return remote.run(outputs.ssh[host], "ss -Hltnp | grep bird | awk '{print $4}'").text.strip()


def test_bgp_listen_port_and_address(
    outputs: Outputs, other_port: str, lab_is_healthy: Callable[[], None]
) -> None:
    def moved() -> None:
        for host, address in outputs.hosts.items():
            assert listens(outputs, host) == f"{address}:{PORT if host == other_port else 179}"

    eventually(moved, seconds=30)
    eventually(lab_is_healthy, seconds=30)


def test_bgp_restored(outputs: Outputs, lab_is_healthy: Callable[[], None]) -> None:
    def back() -> None:
        for host in outputs.hosts:
            assert listens(outputs, host) in ("0.0.0.0:179", "*:179"), host
            shown = remote.run(outputs.ssh[host], f"{_OWN} show protocols; ip route").text
            assert "Global_" not in shown
            assert "10.99.1.0" not in shown

    eventually(back, seconds=30)
    eventually(lab_is_healthy, seconds=30)
