"""`provider: existing`: a machine with nothing but SSH becomes a one-host lab, and is given back as it was.

The machine is a bare systemd container: Debian, sshd and a sudoer. It is made here by Docker alone, so that
nothing of the lab's own way of making machines is in it; and of the release that the lab's hosts do not run.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bench.guests import guests
from components.config import load
from components.hosts.machine import CAPABILITIES, DEVICE_RULES
from lab import doctor, status
from lab.stack import PROJECT
from tests.live.apart import Apart
from tests.live.here import run
from tests.live.waiting import eventually

NAME = "calico-lab-test-vm"
ADDRESS = "172.30.97.10"
STACK = "vms"
STRANGER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKrKFrPX9dBSwBkVq8IZimqzXzO1ht5rG9rLdOryGwdj"
_DEBIAN = "calico-lab/debian:bookworm"
_ENGINE = Path(__file__).with_name("docker-ce.sh")


@dataclass(frozen=True)
class Machine:
    """The bare machine, and the key that opens it."""

    key: Path
    host_key: str

    def shell(self, script: str, seconds: float = 60) -> str:
        """Run a script on the machine, without the lab's SSH."""
        return run("docker", "exec", "-i", NAME, "sh", "-eu", stdin=script, seconds=seconds)

    def booted(self) -> None:
        """Fail while the machine is still starting; without a host key of its own, ssh is not up yet."""
        state = self.shell("systemctl is-system-running 2>&1 || true").strip()
        assert state in ("running", "degraded"), state

    def look(self) -> dict[str, set[str]]:
        """What a person who gave the machine away would look at when it comes back."""
        return {
            "packages": set(self.shell("dpkg-query -W -f '${Package} ${db:Status-Status}\\n'").splitlines()),
            "files": set(
                self.shell(
                    "find /etc /opt /usr/local /root /home /var/lib -xdev -not -path '/var/lib/systemd/*'"
                    " -not -path '/var/lib/dpkg/*' -not -path '/var/lib/apt/*' -not -path '/var/lib/ucf/*'"
                ).splitlines()
            ),
            "links": set(self.shell("ls /sys/class/net").split()),
            "routes": set(self.shell("ip route show table all").splitlines()),
            "routing rules": set(self.shell("ip rule").splitlines()),
            "listeners": set(self.shell("cat /proc/net/tcp | awk '$4 == \"0A\" {print $2}'").split()),
            "forwarding": set(self.shell("cat /proc/sys/net/ipv4/ip_forward").split()),
            "mounts": set(
                # An engine keeps the namespace that containers without one of their own have used.
                self.shell(
                    "cut -d ' ' -f 2,3 /proc/mounts | grep -v -e /var/lib/docker -e docker/netns/default"
                ).splitlines()
            ),
            "programs": set(
                self.shell("tc filter show dev eth0 ingress; tc qdisc show dev eth0").splitlines()
            ),
            "ways in": set(
                self.shell(
                    "grep . /proc/sys/net/ipv4/conf/*/rp_filter /proc/sys/net/ipv4/conf/*/accept_local"
                ).splitlines()
            ),
            "rules": self.rules(),
            "failed": set(self.shell("systemctl list-units --failed --plain --no-legend").splitlines()),
        }

    def rules(self) -> set[str]:
        """Its packet filters, seen with the controller's iptables: a table that is empty and open is none."""
        pid = run("docker", "inspect", "--format", "{{.State.Pid}}", NAME).strip()
        saved = [
            run("nsenter", "--target", pid, "--net", save) for save in ("iptables-save", "ip6tables-save")
        ]
        lines = (line.partition(" [")[0] for text in saved for line in text.splitlines())
        return {line for line in lines if line[:1] in ":-" and not line.endswith(" ACCEPT")}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("vm")
    build = ("docker", "build", "--quiet", "--target", "machine", "--build-arg", f"BASE={_DEBIAN}")
    run(*build, "--tag", "calico-lab/machine:test", "images/host")
    run("docker", "network", "create", "--subnet", "172.30.97.0/24", NAME)
    try:
        for name in ("key", "host"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name))
        run(
            *("docker", "run", "--detach", "--name", NAME, "--hostname", "vm", "--network", NAME),
            *("--ip", ADDRESS, "--cgroupns", "private"),
            *("--security-opt", "seccomp=images/host/seccomp.json", "--security-opt", "apparmor=unconfined"),
            *("--tmpfs", "/run:exec", "--tmpfs", "/tmp:exec"),  # noqa: S108
            *("--volume", "/var/lib/docker", "--volume", "/var/lib/containerd"),
            *(flag for capability in CAPABILITIES for flag in ("--cap-add", capability)),
            *(flag for rule in DEVICE_RULES for flag in ("--device-cgroup-rule", rule)),
            "calico-lab/machine:test",
        )
        vm = Machine(folder / "key", (folder / "host.pub").read_text().strip())
        # While it boots, systemd empties /tmp, and apt has its keys there (systemd-tmpfiles-setup.service).
        eventually(vm.booted, seconds=30)
        vm.shell(
            f"""
            cat >/etc/ssh/ssh_host_ed25519_key <<'KEY'
{(folder / "host").read_text()}
KEY
            chmod 0600 /etc/ssh/ssh_host_ed25519_key
            useradd --create-home --shell /bin/bash ops
            install -d -m 0700 -o ops -g ops /home/ops/.ssh
            echo '{(folder / "key.pub").read_text().strip()}' >/home/ops/.ssh/authorized_keys
            apt-get update -qq
            apt-get install -qq --no-install-recommends sudo procps >/dev/null 2>&1
            echo 'ops ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ops
            systemctl restart ssh
            """,
            seconds=120,
        )
        yield vm
    finally:
        run("docker", "rm", "--force", "--volumes", NAME)
        run("docker", "network", "rm", NAME)


def config(machine: Machine, dataplane: str) -> dict[str, object]:
    """One machine that is everything: the smallest lab."""
    host = {"address": ADDRESS, "user": "ops", "hostKey": machine.host_key}
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
        for finding in doctor.findings(doctor.look(load(described, "Pulumi.vms.yaml")))
    ]


@pytest.mark.timeout(120)
def test_the_doctor_says_what_stands_in_the_way(machine: Machine) -> None:
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
        ("vm", "tcp/2379 is taken by systemd-socket-, and wanted for etcd's clients"),
        ("vm", "has a way to 10.97.7.0/24 by eth0 already, which is in network.cidr 10.97.0.0/16"),
    ]
    [(_, stranger)] = checked(config(replace(machine, host_key=STRANGER), "iptables"))
    assert "Host key verification failed." in stranger


@pytest.mark.timeout(600)
def test_a_bare_machine_becomes_a_lab_and_is_given_back_as_it_was(machine: Machine, tmp_path: Path) -> None:
    lab = Apart(tmp_path, STACK)
    lab.make()
    before = machine.look()
    lab.up(config(machine, "iptables"), seconds=420)
    assert checked(config(machine, "iptables")) == [], "a lab that is there does not stand in its own way"
    outputs = lab.outputs()
    assert outputs.hosts == {"vm": ADDRESS}
    assert status.findings(status.look(outputs, STACK)) == []
    lab.nothing_to_change()
    # Both leave their own things behind, if they do.
    run("python3", "-m", "toolchain", "ebpf", seconds=1200)
    lab.up(config(machine, "ebpf"), seconds=420)
    assert "cali_tc_" in machine.shell("tc filter show dev eth0 ingress")
    assert status.findings(status.look(outputs, STACK)) == []

    with guests(outputs, ["vm"]) as guest:
        refused = lab.destroy(180, fails=True)
        assert f"vm: containers that are not the lab's run on netv: {guest['vm'].name}. End them" in refused
        assert "10.97." in guest["vm"].run("ip -4 -o address show dev eth0")
    lab.destroy(180)
    eventually(lambda: given_back(machine, before), seconds=15)


def given_back(machine: Machine, before: dict[str, set[str]]) -> None:
    after = machine.look()
    for subject, things in before.items():
        assert after[subject] == things, f"{subject}: {sorted(after[subject] ^ things)[:40]}"


@pytest.mark.timeout(600)
def test_an_engine_that_a_machine_has_is_kept_and_what_runs_on_it(machine: Machine, tmp_path: Path) -> None:
    run("python3", "-m", "toolchain", "current-engine", seconds=900)
    # A link to where it is; `docker cp` is to copy what is there.
    engine = (PROJECT / ".toolchain" / "current-engine").resolve()
    machine.shell("mkdir -p /root/engine")
    run("docker", "cp", f"{engine}/.", f"{NAME}:/root/engine")
    machine.shell(_ENGINE.read_text(), seconds=180)
    run("sh", "-c", f"docker save {_DEBIAN} | docker exec -i {NAME} docker load", seconds=120)
    machine.shell(f"docker run --detach --name operators --restart always {_DEBIAN} sleep infinity")
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
    eventually(lambda: given_back(machine, before), seconds=15)
