"""Settings of the network that a running lab can change, one after the other, and the original at the end.

What goes over the wire, who hears routes from whom, what becomes of containers; and what is refused. A test
starts from whatever the one before has left, so that each change costs one `up`.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.guests import Guest, guests
from components.hosts import remote
from diagnosis import status
from tests.live import calico
from tests.live.crowd import Crowd, crowd
from tests.live.look import CONTAINERS, everywhere, healthy
from tests.live.program import Program
from tests.live.waiting import eventually
from tests.live.wire import all_reach_all, encrypted, in_a_tunnel, on_the_wire
from tests.previews import ProgramError
from workspace.outputs import Outputs


@pytest.fixture(scope="module", autouse=True)
def _original(program: Program) -> Iterator[None]:
    """The tracked config again at the end, whatever has become of the tests."""
    yield
    program.up(seconds=180)


@pytest.mark.timeout(300)
def test_settings_vxlan(outputs: Outputs, program: Program, tmp_path: Path) -> None:
    before = everywhere(outputs, CONTAINERS)
    changes = {"network.encapsulation": "vxlan", "network.policies.notebook-from-proxy.enabled": True}
    config = program.changed_config(tmp_path, changes)
    told = program.pulumi("preview", "--non-interactive", "--color", "never", "--config-file", str(config))
    assert "encapsulation changes from none to vxlan: containers keep running, with their addresses" in told
    program.up(config)
    healthy(program)
    assert everywhere(outputs, CONTAINERS) == before
    # As the end of a tunnel the proxy's host has another address, and is known by its name all the same:
    # `healthy` has gone by way of the proxy.
    refused = remote.run(outputs.ssh["a0"], "timeout 3 bash -c 'exec 3<>/dev/tcp/192.168.0.100/8888'")
    assert refused.status != 0
    mtu = everywhere(outputs, "cat /var/lib/calico/mtu")
    with guests(outputs, list(outputs.hosts)) as guest:
        all_reach_all(guest)
        one, other = list(guest.values())[:2]
        assert " mtu 1450 " in one.run("ip link show cali0 2>/dev/null || ip link show eth0")
        in_a_tunnel(outputs, one, other)
    assert set(mtu.values()) == {"1450"}


def as_it_is(outputs: Outputs, one: Guest, other: Guest) -> None:
    seen = on_the_wire(outputs, one, other)
    assert len(re.findall("ICMP echo", seen)) == 6, seen
    assert "VXLAN" not in seen


@pytest.mark.timeout(300)
def test_settings_vxlan_cross_subnet(outputs: Outputs, program: Program, tmp_path: Path) -> None:
    """The hosts are on one segment. Calico takes the subnet from a node's address, which startup writes."""
    program.up(program.changed_config(tmp_path, {"network.encapsulation": "vxlan-cross-subnet"}))
    healthy(program)
    apart, *neighbours = outputs.hosts
    with guests(outputs, list(outputs.hosts)) as guest:
        all_reach_all(guest)
        as_it_is(outputs, guest[apart], guest[neighbours[0]])
        for host, address in outputs.hosts.items():
            calico.calicoctl(
                outputs,
                f"""patch node {host} --patch={{"spec":{{"bgp":{{"ipv4Address":"{address}/25"}}}}}}""",
            )
        eventually(lambda: in_a_tunnel(outputs, guest[apart], guest[neighbours[0]]), seconds=20)
        as_it_is(outputs, guest[neighbours[0]], guest[neighbours[1]])
        all_reach_all(guest)


def sessions(outputs: Outputs, program: Program) -> dict[tuple[str, str], str]:
    """The sessions that BIRD has on each host, expected or not: state by host and peer."""
    names = {address: host for host, address in outputs.hosts.items()}
    seen = status.look(outputs, program.stack)
    return {
        (host, names[peer]): session.state
        for host in outputs.hosts
        for peer, session in seen.hosts[host].sessions.items()
    }


@pytest.mark.timeout(300)
def test_settings_route_reflector(outputs: Outputs, program: Program, tmp_path: Path) -> None:
    before = everywhere(outputs, CONTAINERS)
    reflector, *clients = outputs.hosts
    program.up(program.changed_config(tmp_path, {"network.routeReflectors": [reflector]}))
    now = healthy(program)
    # This is the way back from VXLAN too: of it, nothing is left.
    left = everywhere(outputs, "ip -o link; ip rule; cat /var/lib/calico/mtu")
    assert not [text for text in left.values() if "vxlan" in text]
    assert {text.rpartition("\n")[2] for text in left.values()} == {"1500"}
    assert now.route_reflectors == (reflector,)
    pairs = {(reflector, client) for client in clients} | {(client, reflector) for client in clients}
    assert sessions(now, program) == dict.fromkeys(pairs, "Established")
    with guests(now, list(now.hosts)) as guest:
        all_reach_all(guest)
        # The clients know each other's blocks from the reflector, and send straight to each other.
        one, other = clients
        route = remote.run(now.ssh[one], f"ip route get {guest[other].address}")
        assert f"via {now.hosts[other]} " in route.text
    assert everywhere(outputs, CONTAINERS) == before
    program.up()
    again = healthy(program)
    assert set(sessions(again, program)) == set(itertools.permutations(again.hosts, 2))
    assert "route-reflectors" not in calico.names(outputs, "bgppeer")
    assert "route-reflector" not in calico.calicoctl(outputs, "get nodes --output yaml")


@pytest.mark.timeout(180)
def test_settings_another_first_host(outputs: Outputs, program: Program, tmp_path: Path) -> None:
    def pool() -> list[str]:
        return [one["metadata"]["uid"] for one in calico.resources(outputs, "ippools")]

    before = everywhere(outputs, CONTAINERS), pool()
    first, *others = outputs.hosts
    config = program.edited_config(
        tmp_path, "network", lambda network: network.update(hosts=[*others, first])
    )
    changes = {change.name: change.operation for change in program.preview(config)}
    assert changes["calico-datastore"] == "update"
    program.up(config)
    assert (everywhere(outputs, CONTAINERS), pool()) == before
    healthy(program)
    program.up()
    assert (everywhere(outputs, CONTAINERS), pool()) == before
    healthy(program)


def kernel_has_wireguard(outputs: Outputs) -> bool:
    """Whether the kernel of the hosts makes its interfaces: Debian's and Ubuntu's do."""
    tried = (
        "ip link add try-kernel type wireguard 2>/dev/null && ip link delete try-kernel && echo yes || true"
    )
    return set(everywhere(outputs, tried).values()) == {"yes"}


@pytest.mark.timeout(300)
def test_settings_wireguard(outputs: Outputs, program: Program, tmp_path: Path) -> None:
    changes = {"network.wireguard": True}
    if not kernel_has_wireguard(outputs):
        refused(outputs, program, tmp_path, changes, "does not support wireguard interfaces")
        return
    before = everywhere(outputs, CONTAINERS)
    program.up(program.changed_config(tmp_path, changes))
    healthy(program)
    assert everywhere(outputs, CONTAINERS) == before
    with guests(outputs, list(outputs.hosts)) as guest:
        all_reach_all(guest)
        one, other = list(guest.values())[:2]
        eventually(lambda: encrypted(outputs, one, other), seconds=60)


def test_settings_mtu_refused(outputs: Outputs, program: Program, tmp_path: Path) -> None:
    changes = {"network.encapsulation": "vxlan", "network.mtu": 1451}
    refused(outputs, program, tmp_path, changes, "leaves 1450 bytes")


def everybody(people: Crowd) -> None:
    assert people.reach() == people.everything


@pytest.mark.timeout(300)
def test_settings_another_pool(outputs: Outputs, program: Program, tmp_path: Path) -> None:
    changes = {
        "network.cidr": "10.98.0.0/16",
        "network.blockSize": 31,
        "network.mtu": 1400,
        "notebook.address": "10.98.0.100",
        "sshBox.address": "10.98.0.96",
    }
    config = program.changed_config(tmp_path, changes)
    with guests(outputs, ["a2"]) as guest:
        with pytest.raises(ProgramError) as refused:
            program.preview(config)
        reason = "a2: netv is replaced, and containers that are not the lab's are attached to it"
        assert f"{reason}: {guest['a2'].name}" in str(refused.value)
    replaced = {change.name for change in program.preview(config) if "replace" in change.operation}
    assert {"notebook", "sshbox", *(f"{host}-netv" for host in outputs.hosts)} <= replaced
    program.up(config, seconds=180)
    now = healthy(program)
    # A service gives its address back when it stops. Nobody is given it who does not ask for it, though the
    # first container on its host takes the only other address of its block.
    assert remote.run(now.ssh["a0"], "docker stop --time 1 calico-lab-sshbox").status == 0
    with crowd(now) as people:
        given = set(people.addresses.values())
        assert "10.98.0.97" in given, "its block is that of the host"
        assert not given & {"10.98.0.96", "10.98.0.100"}
        assert all(address.startswith("10.98.") for address in given)
        assert remote.run(now.ssh["a0"], "docker start calico-lab-sshbox").status == 0
        eventually(lambda: everybody(people), seconds=20)
        links = everywhere(
            now,
            "ip -o link show; for id in $(docker ps -q --filter network=netv); do "
            "nsenter -n -t $(docker inspect -f '{{.State.Pid}}' $id) ip -o link show; done",
        )
        for text in links.values():
            assert set(re.findall(r": cali\S+ .*? mtu (\d+)", text)) == {"1400"}
    assert healthy(program).hosts == now.hosts
    box = program.resource("SshBox")["outputs"]["address"]
    assert f"{box} dev cali" in remote.run(now.ssh["a0"], "ip route").text
    blocks = calico.calicoctl(now, "ipam show --show-blocks")
    assert "192.168." not in blocks
    assert set(re.findall(r"Block +\| [0-9.]+/(\d+)", blocks)) == {"31"}


def refused(
    outputs: Outputs, program: Program, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """Fail where a change is not refused by every host before anything changes."""
    before = settings(outputs)
    config = program.changed_config(tmp_path, changes)
    for attempt in (program.preview, program.up):
        with pytest.raises(ProgramError) as raised:
            attempt(config)
        for host in outputs.hosts:
            assert re.search(rf"network: {host}: .*{message}.*Nothing was changed", str(raised.value))
    assert settings(outputs) == before


def settings(outputs: Outputs) -> list[dict[str, Any]]:
    """The network settings in the datastore."""
    return [*calico.resources(outputs, "felixconfiguration"), *calico.resources(outputs, "ippool")]
