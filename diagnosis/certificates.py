"""Findings about certificates: those that have expired, and those that expire soon."""

from collections.abc import Iterator, Mapping, Sequence

from components.shared.validity import RENEW_DAYS
from diagnosis.facts import Certificate, HostFacts
from diagnosis.finding import Finding


def expired(hosts: Mapping[str, HostFacts], up: str) -> Iterator[Finding]:
    """Find the hosts with expired certificates.

    Args:
        hosts: The facts by host.
        up: The command that renews certificates.
    """
    for host, facts in hosts.items():
        if found := [one for one in facts.certificates if one.days < 0]:
            yield Finding(host, f"certificates have ended: {_list(found)}", up)


def expiring(hosts: Mapping[str, HostFacts], up: str) -> Iterator[Finding]:
    """Find the hosts with valid certificates that an `up` renews.

    Args:
        hosts: The facts by host.
        up: The command that renews certificates.
    """
    for host, facts in hosts.items():
        if found := [one for one in facts.certificates if 0 <= one.days < RENEW_DAYS]:
            yield Finding(host, f"certificates end soon: {_list(found)}", up)


def _list(certificates: Sequence[Certificate]) -> str:
    return ", ".join(
        f"{one.file} {f'in {one.days} days' if one.days >= 0 else f'on {one.ends:%Y-%m-%d}'}"
        for one in sorted(certificates, key=lambda one: (one.ends, one.file))
    )
