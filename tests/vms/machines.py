"""Virtual machines: each a container with an emulator in it, on a Docker network of the controller.

They have what the lab's hosts have, Debian's own kernel, and a life of their own: modules, reboots, control
groups. Nothing is installed on the controller, and what they were goes with the containers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.hosts import remote
from components.hosts.remote import Answer
from tests.live.here import run

_HERE = Path(__file__).parent
_NETWORK = "calico-lab-test-vms"
_GROUP = "vms"
_SUBNET = "172.30.98.0/24"
# The release that the lab's hosts do not run.
_DEBIAN = "calico-lab/debian:bookworm"
_HOST_IMAGE = "calico-lab/host:test"
_IMAGE = "calico-lab/vm:test"
# Packages are fetched, and a machine's tree is copied from one image into another.
_BUILD_SECONDS = 900


class MachineError(Exception):
    """A machine does not run."""


@dataclass(frozen=True)
class Machine:
    """A virtual machine, and how root comes into it without the lab."""

    name: str
    address: str
    host_key: str
    ssh: str

    def run(self, script: str, seconds: float = 60) -> Answer:
        """Run a script on it."""
        return remote.run(self.ssh, script, seconds=seconds)

    def booted(self) -> None:
        """Fail where it is not up.

        Raises:
            MachineError: It does not even run; the message has the last that its console said.
        """
        runs = ("docker", "inspect", "--format", "{{.State.Running}}")
        if run(*runs, _container(self.name)).strip() != "true":
            raise MachineError(run("docker", "logs", "--tail", "20", _container(self.name)))
        answer = self.run("systemctl is-system-running || true", seconds=20)
        assert answer.text.strip() in ("running", "degraded"), answer


@contextmanager
def machines(names: Sequence[str], folder: Path) -> Iterator[list[Machine]]:
    """Boot machines, and remove them at the end.

    Args:
        names: Their names.
        folder: Where their keys lie; `key` opens them.
    """
    build = ("docker", "build", "--quiet")
    host = ("--build-arg", f"BASE={_DEBIAN}", "--tag", _HOST_IMAGE, "images/host")
    run(*build, *host, seconds=_BUILD_SECONDS)
    run(*build, "--build-arg", f"HOST={_HOST_IMAGE}", "--tag", _IMAGE, str(_HERE), seconds=_BUILD_SECONDS)
    for name in ("key", *names):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name))
    run("tests/leftovers.sh", _GROUP)
    run("docker", "network", "create", "--label", f"calico-lab.test={_GROUP}", "--subnet", _SUBNET, _NETWORK)
    try:
        yield [_boot(name, f"172.30.98.{10 + number}", folder) for number, name in enumerate(names)]
    finally:
        run("docker", "rm", "--force", "--volumes", *map(_container, names))
        run("docker", "network", "rm", _NETWORK)


def _container(name: str) -> str:
    return f"{_NETWORK}-{name}"


def _boot(name: str, address: str, folder: Path) -> Machine:
    devices = [f"--device={device}" for device in ("/dev/net/tun", "/dev/kvm") if Path(device).exists()]
    network = ("--network", _NETWORK, "--ip", address, "--cap-add", "NET_ADMIN")
    given = ("--volume", f"{folder}:/keys:ro", "--env", f"NAME={name}")
    name_and_label = ("--name", _container(name), "--label", f"calico-lab.test={_GROUP}")
    run("docker", "run", "--detach", *name_and_label, *network, *devices, *given, _IMAGE)
    host_key = (folder / f"{name}.pub").read_text().strip()
    known = folder / f"{name}.known"
    known.write_text(f"{address} {host_key}\n")
    options = f"-o BatchMode=yes -o ConnectTimeout=5 -o UserKnownHostsFile={known} -i {folder}/key"
    return Machine(name, address, host_key, f"ssh {options} root@{address}")
