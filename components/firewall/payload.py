"""The files that a host's firewall consists of: the program, its units, and the documents of a change."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from components.firewall.rules.compile import ipset_name

SCRIPT = Path(__file__).with_name("scripts") / "firewall.sh"
_UNITS = (
    "calico-lab-firewall.service",
    "calico-lab-firewall-jumps.service",
    "calico-lab-firewall-jumps.timer",
)
FILES = (SCRIPT, *(Path(__file__).with_name("units") / unit for unit in _UNITS))


def program_digest() -> str:
    """A digest of the program and its units, so that a newer version of them is an update."""
    content = b"\0".join(file.read_bytes() for file in FILES)
    return hashlib.sha256(content).hexdigest()[:12]


def restore_sets(sets: Mapping[str, str]) -> str:
    """Render sets for `ipset restore`.

    Each is filled under another name and then swapped, so that it is complete at every moment.

    Args:
        sets: The members of each set, one per line, by `<set>/<family>`.
    """
    return "".join(_restore_set(ipset_name(key, text), text) for key, text in sorted(sets.items()))


def _restore_set(name: str, members: str) -> str:
    networks = members.splitlines()
    family, draft = ("inet", "cl4-draft") if name.startswith("cl4-") else ("inet6", "cl6-draft")
    kind = f"hash:net family {family} maxelem {max(65536, len(networks))}"
    lines = [f"create -exist {set_name} {kind}" for set_name in (name, draft)]
    lines += [f"flush {draft}", *(f"add {draft} {network}" for network in networks)]
    return "\n".join([*lines, f"swap {draft} {name}", f"destroy {draft}", ""])


def pack(documents: Mapping[str, str]) -> str:
    """Make a tar archive of the program, its units and some documents, as text: all of them are text.

    The files are not placed like those of other components, because `firewall.sh` has to place them itself:
    under its lock, and after it has tested the documents.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in {
            **{file.name: file.read_bytes() for file in FILES},
            **{name: text.encode() for name, text in documents.items()},
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue().decode()
