"""What containers cannot show of `provider: existing`: other kernels, their modules, and real reboots.

Two virtual machines with Debian's kernel become a lab with WireGuard, change to eBPF, reboot, and are
restored. Where the processor is emulated, all of it takes a quarter of an hour.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.guests import guests
from diagnosis import status
from diagnosis.trace.flow import parse_flow
from diagnosis.trace.hops import hops
from diagnosis.trace.loss import loss
from diagnosis.trace.observation import observe
from tests.live import connections
from tests.live.apart import Apart
from tests.live.look import everywhere
from tests.live.waiting import eventually
from tests.live.wire import encrypted
from tests.vms.machines import Machine, machines
from workspace.outputs import Outputs

NAMES = ("v0", "v1")
# An emulated processor is some thirty times slower.
UP_SECONDS = 1200
SETTLE_SECONDS = 300
KERNEL = """\
ls /sys/class/net
ip rule
ip route show table all | grep -v ' table local '
find /sys/fs/bpf /etc/calico-lab /opt/calico-lab /var/lib/calico-lab /etc/systemd/system 2>/dev/null
iptables-save | grep -i cali
systemctl list-units --failed --plain --no-legend
true
"""

pytestmark = pytest.mark.timeout(UP_SECONDS + SETTLE_SECONDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vms")


@pytest.fixture(scope="module")
def bare(folder: Path) -> Iterator[list[Machine]]:
    with machines(NAMES, folder) as booting:
        for machine in booting:
            eventually(machine.booted, seconds=SETTLE_SECONDS, pause=2)
        yield booting


@pytest.fixture(scope="module")
def before(bare: list[Machine]) -> dict[str, str]:
    return {machine.name: machine.run(KERNEL).text for machine in bare}


@pytest.fixture(scope="module")
def lab(folder: Path, before: dict[str, str]) -> Apart:
    assert set(before) == set(NAMES)
    apart = Apart(folder, "machines")
    apart.make()
    return apart


def config(bare: list[Machine], folder: Path, **network: object) -> dict[str, Any]:
    hosts = {one.name: {"address": one.address, "user": "root", "hostKey": one.host_key} for one in bare}
    return {
        "calico-lab:hosts": {
            "provider": "existing",
            "members": hosts,
            "privateKey": str(folder / "key"),
        },
        "calico-lab:etcd": {"members": ["v0"], "token": "etcd-vms"},
        "calico-lab:network": {"name": "netv", "cidr": "10.98.0.0/16", "encapsulation": "none", **network},
        "calico-lab:notebook": {"host": "v1", "address": "10.98.0.100"},
        "calico-lab:sshBox": {"host": "v0", "address": "10.98.0.101"},
        "calico-lab:proxy": {"host": "v1", "port": 8888},
    }


def healthy(lab: Apart) -> Outputs:
    """What the stack says of the lab, which has nothing wrong with it, soon."""
    outputs = lab.outputs()

    def nothing_is_wrong() -> None:
        assert status.findings(status.look(outputs, lab.stack)) == []

    eventually(nothing_is_wrong, seconds=SETTLE_SECONDS, pause=2)
    return outputs


def facts_of_the_way(lab: Apart, outputs: Outputs) -> dict[str, dict[str, str]]:
    """The facts of a trace from the SSH box to the notebook, by kind of hop; the last of a kind counts."""
    observation = observe(outputs, lab.stack, "sshbox", "notebook", parse_flow("tcp/8888"))
    path = hops(observation)
    assert loss(observation, path) is None
    return {hop.kind: dict(hop.facts) for hop in path}


def test_vms_wireguard(lab: Apart, bare: list[Machine], folder: Path) -> None:
    lab.up(config(bare, folder, wireguard=True), UP_SECONDS)
    outputs = healthy(lab)
    lab.nothing_to_change()
    told = facts_of_the_way(lab, outputs)
    assert told["wire"]["encapsulation"].startswith("WireGuard, by wireguard.cali")
    assert told["arrival"]["comes by"].startswith("wireguard.cali")
    for host, address in everywhere(outputs, "ip -o -4 address show dev wireguard.cali").items():
        assert "/32 " in address, f"{host}: it had none after the first up"
    with guests(outputs, list(outputs.hosts)) as guest:
        one, other = guest.values()
        assert " mtu 1440 " in one.run("ip link show eth0")
        eventually(lambda: encrypted(outputs, one, other), seconds=60)


def test_vms_ebpf(lab: Apart, bare: list[Machine], folder: Path) -> None:
    outputs = lab.outputs()
    with guests(outputs, list(outputs.hosts)) as guest:
        connections.connect(outputs, guest)
        lab.up(config(bare, folder, wireguard=True, dataplane="ebpf"), UP_SECONDS)
        connections.were_kept(guest)
        one, other = guest.values()
        encrypted(outputs, one, other)
    outputs = healthy(lab)
    for host, hung in everywhere(outputs, "tc filter show dev eth0 ingress").items():
        assert "cali_tc_preambl" in hung, host
        assert "jited" in hung, host
    told = facts_of_the_way(lab, outputs)
    assert told["felix"]["program"].endswith("→ profile netv")
    assert told["wire"]["encapsulation"].startswith("WireGuard, by wireguard.cali")


def test_vms_reboot(lab: Apart, bare: list[Machine]) -> None:
    rebooted = bare[1]
    boot = "cat /proc/sys/kernel/random/boot_id"
    before = rebooted.run(boot).text
    rebooted.run("systemctl reboot")

    def is_another() -> None:
        answer = rebooted.run(boot, seconds=20)
        assert answer.status == 0, answer.error
        assert answer.text != before

    eventually(is_another, seconds=SETTLE_SECONDS, pause=2)
    assert facts_of_the_way(lab, healthy(lab))["answer"]["result"] == "connected"


def test_vms_destroy(lab: Apart, bare: list[Machine], folder: Path, before: dict[str, str]) -> None:
    lab.up(config(bare, folder, encapsulation="vxlan"), UP_SECONDS)
    told = facts_of_the_way(lab, healthy(lab))
    assert told["wire"]["encapsulation"].startswith("VXLAN, network 4096")
    lab.destroy(UP_SECONDS)
    for machine in bare:
        assert machine.run(KERNEL).text == before[machine.name]
