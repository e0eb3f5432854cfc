"""Guests: containers on the lab's network in which measurements and tests run commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.hosts import remote
from workspace.outputs import Outputs

_START = Path(__file__).with_name("guest.sh")
_REMOVE = 'docker rm --force "$NAME" >/dev/null && docker rmi calico-lab-guest >/dev/null 2>&1 || true'


class GuestError(Exception):
    """A guest could not be started, or a command in it failed."""


@dataclass(frozen=True)
class Guest:
    """A container on one host, in which the host's programs are mounted."""

    host: str
    ssh: str
    """The ssh command of its host."""
    name: str
    address: str

    def run(self, command: str, seconds: float = 30) -> str:
        """Run a shell command in the container and return its output.

        Raises:
            GuestError: It failed; the message has its standard error.
        """
        answer = self.try_run(command, seconds)
        if answer.status != 0:
            raise GuestError(f"{self.host}: {self.name}: {command}: {answer.error or answer.text}")
        return answer.text

    def try_run(self, command: str, seconds: float = 30) -> remote.Answer:
        """Run a shell command in the container; the answer has its exit status."""
        script = 'exec docker exec "$NAME" sh -c "$COMMAND" </dev/null'
        return remote.run(self.ssh, script, {"NAME": self.name, "COMMAND": command}, seconds)


@contextmanager
def guests(
    outputs: Outputs, hosts: list[str], *, name: str = "guest", network: str | None = None
) -> Iterator[dict[str, Guest]]:
    """Start a guest on each host, and remove them at the end.

    Args:
        outputs: The lab.
        hosts: The hosts.
        name: A part of their names.
        network: Their Docker network; by default the lab's.
    """
    ssh = {host: outputs.ssh[host] for host in hosts}
    names = {host: f"calico-lab-{name}-{host}" for host in hosts}
    variables = {host: {"NAME": names[host], "NETWORK": network or outputs.network} for host in hosts}
    try:
        started = remote.ask(ssh, _START.read_text(), variables, seconds=90)
        for host, answer in started.items():
            if answer.status != 0:
                raise GuestError(f"{host}: {names[host]} did not start: {answer.error}")
        yield {
            host: Guest(host, ssh[host], names[host], answer.text.strip()) for host, answer in started.items()
        }
    finally:
        remote.ask(ssh, _REMOVE, variables)
