"""Containers on the network, one of each team on each host, and which of them reach which."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

from bench.guests import GuestError
from components.hosts import remote
from workspace.outputs import PROJECT, Outputs

HERE = Path(__file__).parent
GUEST = (PROJECT / "bench" / "guest.sh").read_text()
PROBE = (HERE / "crowd.sh").read_text()
HEARD = (HERE / "heard.sh").read_text()
REMOVE = "docker rm --force $NAMES >/dev/null && docker rmi calico-lab-guest >/dev/null 2>&1 || true"
TEAMS = {team: f"team={team}" for team in ("red", "green", "blue")}
"""The label of each team."""
PROTOCOLS = ("ping", "tcp", "udp")

Reach = frozenset[tuple[str, str, str]]
"""Who reaches whom by what: sender, target, protocol."""


@dataclass(frozen=True)
class Crowd:
    """The containers, by name `<team>-<host>`."""

    outputs: Outputs
    teams: Sequence[str]
    addresses: Mapping[str, str]

    @property
    def everything(self) -> Reach:
        """Each reaches each other by everything."""
        return frozenset(
            (one, other, protocol)
            for (one, other), protocol in product(permutations(self.addresses, 2), PROTOCOLS)
        )

    def reach(self) -> Reach:
        """Try it, in both directions between any two."""
        self._ask(HEARD)
        targets = " ".join(f"{name}={address}" for name, address in self.addresses.items())
        told = [*self._ask(PROBE, TARGETS=targets), *self._ask(HEARD)]
        return frozenset(
            (words[0], words[1], words[2]) for words in told if words[3] == "open" and words[0] != words[1]
        )

    def _ask(self, script: str, **variables: str) -> list[list[str]]:
        by_host = {
            host: {"NAMES": " ".join(f"{team}-{host}" for team in self.teams), **variables}
            for host in self.outputs.hosts
        }
        ssh = {host: self.outputs.ssh[host] for host in by_host}
        lines = []
        for host, answer in remote.ask(ssh, script, by_host, seconds=60).items():
            if answer.status != 0:
                raise GuestError(f"{host}: {answer.error or answer.text}")
            lines += [line.split() for line in answer.text.splitlines()]
        return lines


@contextmanager
def crowd(outputs: Outputs, teams: Mapping[str, str] = TEAMS) -> Iterator[Crowd]:
    """Start the containers, and remove them at the end.

    Args:
        outputs: The lab.
        teams: The label of each team, as policies see it; empty for none.
    """
    ssh = {host: outputs.ssh[host] for host in outputs.hosts}
    addresses: dict[str, str] = {}
    try:
        for team, label in teams.items():
            variables = {
                host: {
                    "NAME": f"{team}-{host}",
                    "NETWORK": outputs.network,
                    "LABEL": label and f"org.projectcalico.label.{label}",
                }
                for host in ssh
            }
            for host, answer in remote.ask(ssh, GUEST, variables, seconds=60).items():
                if answer.status != 0:
                    raise GuestError(f"{host}: {team}-{host} did not start: {answer.error}")
                addresses[f"{team}-{host}"] = answer.text.strip()
        people = Crowd(outputs, list(teams), addresses)
        people._ask(HEARD)
        yield people
    finally:
        names = {host: {"NAMES": " ".join(f"{team}-{host}" for team in teams)} for host in ssh}
        remote.ask(ssh, REMOVE, names)
