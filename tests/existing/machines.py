"""Hosts that exist already: bare systemd containers with Debian, sshd and a sudoer.

`docker run` starts them, so that nothing of the lab's host containers is in them; they run the Debian release
that the lab's hosts do not run.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.hosts.container import CAPABILITIES, DEVICE_RULES
from tests.live.here import run
from tests.live.waiting import eventually

NETWORK = "calico-lab-test-vm"
SUBNET = "172.30.97.0/24"
BASE = "calico-lab/debian:bookworm"
GROUP = "existing"
LABEL = f"calico-lab.test={GROUP}"
"""By this label `tests/leftovers.sh` removes what a killed run has left, and nothing of others."""


@dataclass(frozen=True)
class Machine:
    """A bare machine, and the key that opens it."""

    name: str
    """The name of its container."""
    address: str
    key: Path
    host_key: str

    def shell(self, script: str, seconds: float = 60) -> str:
        """Run a script on the machine, without the lab's SSH."""
        return run("docker", "exec", "-i", self.name, "sh", "-eu", stdin=script, seconds=seconds)

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
        pid = run("docker", "inspect", "--format", "{{.State.Pid}}", self.name).strip()
        saved = [
            run("nsenter", "--target", pid, "--net", save) for save in ("iptables-save", "ip6tables-save")
        ]
        lines = (line.partition(" [")[0] for text in saved for line in text.splitlines())
        return {line for line in lines if line[:1] in ":-" and not line.endswith(" ACCEPT")}


@contextmanager
def machines(folder: Path, addresses: Sequence[str]) -> Iterator[list[Machine]]:
    """Boot a machine at each address, all with one key of the operator and host keys of their own."""
    build = ("docker", "build", "--quiet", "--target", "machine", "--build-arg", f"BASE={BASE}")
    run(*build, "--tag", "calico-lab/machine:test", "images/host", seconds=600)
    _make_key(folder / "key")
    run("tests/leftovers.sh", GROUP)
    with ExitStack() as stack:
        run("docker", "network", "create", "--label", LABEL, "--subnet", SUBNET, NETWORK)
        stack.callback(run, "docker", "network", "rm", NETWORK)
        booted = [stack.enter_context(_machine(folder, address)) for address in addresses]
        for machine in booted:
            _let_in(machine)
        yield booted


def _make_key(path: Path) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path))


@contextmanager
def _machine(folder: Path, address: str) -> Iterator[Machine]:
    name = f"{NETWORK}-{address.rpartition('.')[2]}"
    host_key = folder / f"{name}-host"
    _make_key(host_key)
    run(
        *("docker", "run", "--detach", "--name", name, "--label", LABEL, "--hostname", "vm"),
        *("--network", NETWORK, "--ip", address, "--cgroupns", "private"),
        *("--security-opt", "seccomp=images/host/seccomp.json", "--security-opt", "apparmor=unconfined"),
        *("--tmpfs", "/run:exec", "--tmpfs", "/tmp:exec"),  # noqa: S108
        *("--volume", "/var/lib/docker", "--volume", "/var/lib/containerd"),
        *(flag for capability in CAPABILITIES for flag in ("--cap-add", capability)),
        *(flag for rule in DEVICE_RULES for flag in ("--device-cgroup-rule", rule)),
        "calico-lab/machine:test",
    )
    try:
        yield Machine(name, address, folder / "key", host_key.with_suffix(".pub").read_text().strip())
    finally:
        run("docker", "rm", "--force", "--volumes", name)


def _let_in(machine: Machine) -> None:
    # While it boots, systemd empties /tmp, and apt has its keys there (systemd-tmpfiles-setup.service).
    eventually(machine.booted, seconds=180)
    machine.shell(
        f"""
        cat >/etc/ssh/ssh_host_ed25519_key <<'KEY'
{machine.key.with_name(f"{machine.name}-host").read_text()}
KEY
        chmod 0600 /etc/ssh/ssh_host_ed25519_key
        useradd --create-home --shell /bin/bash ops
        install -d -m 0700 -o ops -g ops /home/ops/.ssh
        echo '{machine.key.with_suffix(".pub").read_text().strip()}' >/home/ops/.ssh/authorized_keys
        apt-get update -qq
        apt-get install -qq --no-install-recommends sudo procps >/dev/null 2>&1
        echo 'ops ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ops
        systemctl restart ssh
        """,
        seconds=300,
    )


def given_back(machine: Machine, before: dict[str, set[str]]) -> None:
    """Fail where a machine is not as it was."""
    after = machine.look()
    for subject, things in before.items():
        assert after[subject] == things, f"{subject}: {sorted(after[subject] ^ things)[:40]}"
