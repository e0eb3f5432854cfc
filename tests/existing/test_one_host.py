"""`provider: existing`: a host with nothing but SSH becomes a lab of one host; destroy restores it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.guests import guests
from components.calico import settings
from components.hosts.config import ExistingHosts
from config.loading import load
from diagnosis import status
from lab.doctor import checkup, findings
from tests.existing.machines import BASE, Machine, given_back, machines
from tests.live.apart import Apart
from tests.live.here import run
from tests.live.waiting import eventually
from tests.previews import ProgramError
from workspace.outputs import PROJECT

STACK = "vms"
STRANGER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKrKFrPX9dBSwBkVq8IZimqzXzO1ht5rG9rLdOryGwdj"
_ENGINE = Path(__file__).with_name("docker-ce.sh")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machines(tmp_path_factory.mktemp("vm"), ["172.30.97.10"]) as [vm]:
        # It forwards nothing, as machines do whose owners have decided so.
        vm.shell(
            """
            apt-get install -qq --no-install-recommends nftables >/dev/null 2>&1
            nft add table ip filter
            nft 'add chain ip filter FORWARD { type filter hook forward priority filter; policy drop; }'
            """,
            seconds=300,
        )
        yield vm


def config(machine: Machine, dataplane: str) -> dict[str, object]:
    """One machine that is everything: the smallest lab."""
    host = {"address": machine.address, "user": "ops", "hostKey": machine.host_key}
    return {
        "calico-lab:hosts": {
            "provider": "existing",
            "members": {"vm": host},
            "privateKey": str(machine.key),
        },
        "calico-lab:etcd": {"members": ["vm"], "token": "etcd-vms"},
        # What can leave most behind.
        "calico-lab:network": {
            "name": "netv",
            "cidr": "10.97.0.0/16",
            "encapsulation": "vxlan",
            "dataplane": dataplane,
            "routeReflectors": ["vm"],
            "policies": {"box-stays-in": {"appliesTo": "sshBox", "egress": []}},
        },
        "calico-lab:notebook": {"host": "vm", "address": "10.97.0.100"},
        "calico-lab:sshBox": {"host": "vm", "address": "10.97.0.101"},
        "calico-lab:proxy": {"host": "vm", "port": 8888},
    }


def checked(described: dict[str, object]) -> list[tuple[str, str]]:
    """What `lab doctor` has against the machine."""
    return [
        (finding.where, finding.what)
        for finding in findings.findings(checkup.look(load(described, "Pulumi.vms.yaml")))
    ]


@pytest.mark.timeout(120)
def test_doctor_names_conflicts(machine: Machine) -> None:
    before = machine.look()
    assert checked(config(machine, "iptables")) == []
    given_back(machine, before)
    machine.shell(
        """
        systemd-run --quiet --unit taken systemd-socket-activate --listen 2379 cat
        until ss -Hltn sport = :2379 | grep -q .; do sleep 0.1; done
        ip route add 10.97.7.0/24 dev eth0
        """
    )
    try:
        found = checked(config(machine, "iptables"))
    finally:
        machine.shell("systemctl stop taken; ip route delete 10.97.7.0/24 dev eth0")
    assert found == [
        (
            "vm",
            "network.cidr 10.97.0.0/16 contains 10.97.7.0/24 (route by eth0), which this host could no "
            "longer reach",
        ),
        ("vm", "tcp/2379 is taken by systemd-socket-, and wanted for etcd's clients"),
    ]
    [(_, stranger)] = checked(config(replace(machine, host_key=STRANGER), "iptables"))
    assert "Host key verification failed." in stranger


@pytest.mark.timeout(120)
def test_network_with_operator_address_refused(machine: Machine, tmp_path: Path) -> None:
    before = machine.look()
    # The controller is the gateway, 172.30.97.1.
    holds = config(machine, "iptables")
    network = {"name": "netv", "cidr": "172.30.97.0/29", "blockSize": 30}
    holds |= {"calico-lab:network": network}
    holds |= {"calico-lab:notebook": {"host": "vm", "address": "172.30.97.4"}}
    holds |= {"calico-lab:sshBox": {"host": "vm", "address": "172.30.97.5"}}
    [(_, refused)] = checked(holds)
    assert refused.startswith("network.cidr 172.30.97.0/29 contains 172.30.97.1 (gateway, ")
    assert "operator" in refused
    # A preview of a lab that does not exist yet refuses it, too.
    apart = Apart(tmp_path, STACK)
    apart.make()
    with pytest.raises(ProgramError, match=r"network\.cidr 172\.30\.97\.0/29 contains 172\.30\.97\.1 "):
        apart.preview(holds)
    # Nobody asks beforehand: the route takes the way to the controller from the machine, until it undoes it.
    hosts = load(holds, "Pulumi.vms.yaml").hosts
    assert isinstance(hosts, ExistingHosts)
    ssh = checkup.ssh_commands(hosts, tmp_path)["vm"]
    refusal = settings.try_route("vm", str(ssh), "172.30.97.0/29")
    assert refusal
    assert "the host has removed the route again (seen)" in str(refusal)
    assert settings.try_route("vm", str(ssh), "10.97.0.0/16") is None
    given_back(machine, before)


@pytest.mark.timeout(600)
def test_up_and_destroy_restore_the_host(machine: Machine, tmp_path: Path) -> None:
    lab = Apart(tmp_path, STACK)
    lab.make()
    before = machine.look()
    assert set(lab.preview(config(machine, "iptables")).operations) == {"create"}
    lab.up(config(machine, "iptables"), seconds=420)
    assert checked(config(machine, "iptables")) == [], "a lab that is there does not stand in its own way"
    outputs = lab.outputs()
    assert outputs.hosts == {"vm": machine.address}
    assert status.findings(status.look(outputs, STACK)) == []
    lab.nothing_to_change()
    # Both leave their own things behind, if they do.
    lab.up(config(machine, "ebpf"), seconds=420)
    assert "cali_tc_" in machine.shell("tc filter show dev eth0 ingress")
    assert status.findings(status.look(outputs, STACK)) == []

    with guests(outputs, ["vm"]) as guest:
        refused = lab.destroy(180, fails=True)
        assert f"vm: containers that are not the lab's run on netv: {guest['vm'].name}. Remove" in refused
        assert "10.97." in guest["vm"].run("ip -4 -o address show dev eth0")
    lab.destroy(180)
    eventually(lambda: given_back(machine, before), seconds=60)


@pytest.mark.timeout(600)
def test_up_keeps_an_existing_engine(machine: Machine, tmp_path: Path) -> None:
    # A link to where it is; `docker cp` is to copy what is there.
    engine = (PROJECT / ".toolchain" / "current-engine").resolve()
    machine.shell("mkdir -p /root/engine")
    run("docker", "cp", f"{engine}/.", f"{machine.name}:/root/engine")
    machine.shell(_ENGINE.read_text(), seconds=180)
    run("sh", "-c", f"docker save {BASE} | docker exec -i {machine.name} docker load", seconds=120)
    machine.shell(f"docker run --detach --name operators --restart always {BASE} sleep infinity")
    lab = Apart(tmp_path, STACK)
    lab.make()
    before = machine.look()
    runs = (
        "docker version --format '{{.Server.Version}}';"
        " docker inspect --format '{{.State.StartedAt}}' operators"
    )
    since = machine.shell(runs)

    lab.up(config(machine, "iptables"), seconds=420)
    assert status.findings(status.look(lab.outputs(), STACK)) == []
    lab.nothing_to_change()
    assert machine.shell(runs) == since
    assert "docker-ce installed" in machine.look()["packages"]
    lab.destroy(180)
    assert machine.shell(runs) == since
    eventually(lambda: given_back(machine, before), seconds=60)
