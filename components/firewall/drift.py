"""Finds the drift of a host's rules and sets, from the output of `firewall.sh show`. Pure."""

import difflib
from collections.abc import Mapping, Sequence

from components.firewall.rules.compile import ipset_name

PROGRAMS = {"ipv4": "iptables", "ipv6": "ip6tables"}


def parse_show(output: str) -> dict[str, list[str]]:
    """Split the output of `firewall.sh show` at its `[section]` lines."""
    sections: dict[str, list[str]] = {}
    for line in output.splitlines():
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), [])
        else:
            current.append(line)
    return sections


def listing(output: str) -> dict[str, str]:
    """The kernel's listing of the lab's chains by family, from the output of `firewall.sh show`."""
    sections = parse_show(output)
    return {family: "\n".join(sections[program]) for family, program in PROGRAMS.items()}


def drift_of_rules(loaded: Sequence[str], found: Sequence[str]) -> list[str]:
    """Compare two listings of the lab's chains, line by line.

    A listing is compared with a listing, because the kernel's spelling of a rule is not that of the document,
    and differs between versions of iptables.
    """
    drift = []
    for tag, i, j, k, m in difflib.SequenceMatcher(None, loaded, found, autojunk=False).get_opcodes():
        if tag != "equal":
            drift += [f"gone: {line}" for line in loaded[i:j]] + [f"found: {line}" for line in found[k:m]]
    return drift


def drift_of_sets(sets: Mapping[str, str], entries: Sequence[str]) -> list[str]:
    """Compare the sets on a host with those that were loaded.

    Args:
        sets: The sets that were loaded.
        entries: Lines `<ipset> <network>`, in any order.
    """
    wanted = {f"{ipset_name(key, text)} {line}" for key, text in sets.items() for line in text.splitlines()}
    # The kernel lists a single address without its prefix length.
    found = {entry if "/" in entry else f"{entry}/{128 if ':' in entry else 32}" for entry in entries}
    return [f"gone: {entry}" for entry in sorted(wanted - found)] + [
        f"found: {entry}" for entry in sorted(found - wanted)
    ]


def drift_of_host(loaded: Mapping[str, str], sets: Mapping[str, str], output: str) -> list[str]:
    """Compare a host with what was loaded on it.

    Args:
        loaded: The listing right after loading, by family; empty if nothing was loaded.
        sets: The sets that were loaded.
        output: The output of `firewall.sh show` on the host.
    """
    found = parse_show(output)
    drift = [
        f"{program}: {line}"
        for family, program in PROGRAMS.items()
        for line in drift_of_rules(loaded.get(family, "").splitlines(), found[program])
    ]
    return drift + [f"ipset: {line}" for line in drift_of_sets(sets, found["sets"])]
