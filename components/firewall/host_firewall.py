"""The firewall of one host as a resource: applied, confirmed over a new connection, else undone by the host.

Its inputs are the very rules that the host loads, so that a preview shows which of them change, line by
line. Every step is one `ssh` with a bound, which runs `firewall.sh` (it travels along: no step depends
on what is left on the host):

1. `apply` arms the undo timer, keeps what was loaded and loads the new documents;
2. the lab's own flows to and from the host are tried from the hosts that open them, as they were before: when
   one that came about no longer does, the change is undone at once;
3. `confirm`, over a *new* connection, takes the timer away. A session that was open before proves nothing,
   since established connections pass whatever the rules say.

A change that is not confirmed fails the update, and Pulumi keeps what it knew of the host: that is what the
host has put back, and the next `pulumi up` starts from there.
"""

import difflib
import hashlib
import io
import secrets
import shlex
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pulumi import Input, Output, ResourceOptions, dynamic

from components.firewall.rules.compile import Chains, Compiled, ipset_name, restore_document
from components.firewall.rules.resolve import OPERATOR
from components.hosts.remote import PROJECT, HostError, messages_without_traceback
from components.shared.provider import differ, is_known
from diagnosis.obstacle import End, obstacle
from diagnosis.reachability import Key, Probes, only, reach

SCRIPT = Path(__file__).with_name("scripts") / "firewall.sh"
UNITS = (
    "calico-lab-firewall.service",
    "calico-lab-firewall-jumps.service",
    "calico-lab-firewall-jumps.timer",
)
FILES = (SCRIPT, *(Path(__file__).with_name("units") / unit for unit in UNITS))
FAMILIES = {"ipv4": "iptables", "ipv6": "ip6tables"}
# What a step may take, with ten thousand addresses to load and a slow host.
STEP_SECONDS = 60
# What a preview waits for a host that may not be there.
LOOK_SECONDS = 3
# What the host answers to a confirmation that comes too late.
UNDONE = "the change is undone already"
# How much longer than the window the host may need to have undone a change, and to say so.
GRACE_SECONDS = 10
# The longest that a flow is waited for after a change, and the part of the window that this takes at most:
# the rest is for finding the rule while it is still loaded.
PATIENCE_SECONDS = 3.0
PATIENCE_PART = 5


def program_digest() -> str:
    """A digest of what this component installs on a host, so that a newer version of it is an update."""
    content = b"\0".join(file.read_bytes() for file in FILES)
    return hashlib.sha256(content).hexdigest()[:12]


def restore_sets(sets: Mapping[str, str]) -> str:
    """Render the sets of one host, as the compiler names them, for `ipset restore`.

    A set is filled beside the one in use and swapped, so that it is right at every moment.
    """
    return "".join(_restore_set(ipset_name(key, text), text) for key, text in sorted(sets.items()))


def _restore_set(name: str, members: str) -> str:
    networks = members.splitlines()
    family, draft = ("inet", "cl4-draft") if name.startswith("cl4-") else ("inet6", "cl6-draft")
    kind = f"hash:net family {family} maxelem {max(65536, len(networks))}"
    lines = [f"create -exist {set_name} {kind}" for set_name in (name, draft)]
    lines += [f"flush {draft}", *(f"add {draft} {network}" for network in networks)]
    return "\n".join([*lines, f"swap {draft} {name}", f"destroy {draft}", ""])


def drift_of_rules(loaded: Sequence[str], found: Sequence[str]) -> list[str]:
    """Compare the kernel's listing of our chains with the one made right after loading, line by line.

    A listing is compared with a listing, because the kernel has its own words for a rule, and they differ
    between versions of iptables.
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
        entries: Lines `<set in the kernel> <network>`, in any order.
    """
    wanted = {f"{ipset_name(key, text)} {line}" for key, text in sets.items() for line in text.splitlines()}
    found = {entry if "/" in entry else f"{entry}/{_bits(entry)}" for entry in entries}
    return [f"gone: {entry}" for entry in sorted(wanted - found)] + [
        f"found: {entry}" for entry in sorted(found - wanted)
    ]


def drift_of_host(loaded: Mapping[str, str], sets: Mapping[str, str], shown: str) -> list[str]:
    """Compare what `firewall.sh show` prints on a host with what was loaded there.

    Args:
        loaded: The kernel's listing right after loading, by family; empty where nothing was loaded.
        sets: The sets that were loaded.
        shown: What the host printed.
    """
    found = _sections(shown)
    drift = [
        f"{program}: {line}"
        for family, program in FAMILIES.items()
        for line in drift_of_rules(loaded.get(family, "").splitlines(), found[program])
    ]
    return drift + [f"ipset: {line}" for line in drift_of_sets(sets, found["sets"])]


def _bits(entry: str) -> int:
    """The prefix length of a single address, which the kernel leaves out."""
    return 128 if ":" in entry else 32


class _Connection:
    """Runs `firewall.sh` on one host, every time over a connection of its own."""

    def __init__(self, props: Mapping[str, Any]) -> None:
        self.host = str(props["host"])
        self.url = str(props["url"])
        self.config = str(PROJECT / str(props["ssh_config"]))

    def firewall(
        self,
        verb: str,
        *arguments: str,
        files: Mapping[str, str] | None = None,
        seconds: float = STEP_SECONDS,
    ) -> str:
        """Run one verb as root; return what it printed.

        Raises:
            HostError: When the host cannot be reached or the verb fails.
        """
        script = shlex.quote(
            "umask 077; directory=$(mktemp -d) && trap 'rm -rf \"$directory\"' EXIT && "
            f'tar -xC "$directory" && sh "$directory/{SCRIPT.name}" {shlex.join([verb, *arguments])}'
        )
        remote = f'if [ "$(id -u)" -eq 0 ]; then sh -c {script}; else sudo -n sh -c {script}; fi'
        return self._ssh(verb, remote, _archive(files or {}), seconds)

    def operator(self, seconds: float) -> str:
        """The address from which the host sees this connection (SSH_CONNECTION, sshd(8))."""
        seen = self._ssh("find the operator's address", 'echo "$SSH_CONNECTION"', b"", seconds)
        return seen.split()[0]

    def _ssh(self, step: str, remote: str, stdin: bytes, seconds: float) -> str:
        # A shared connection is an established one, and would prove nothing.
        options = ["-oControlMaster=no", "-oControlPath=none", "-oBatchMode=yes"]
        options += [f"-oConnectTimeout={max(1, int(min(seconds, 10)))}"]
        try:
            done = subprocess.run(
                ["ssh", "-F", self.config, *options, self.url, remote],
                input=stdin,
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise HostError(f"{self.host}: firewall: {step}: no answer within {seconds:.0f} s") from None
        if done.returncode:
            # iptables warns of tables of its older kind, which have no part in this.
            errors = [line for line in done.stderr.decode(errors="replace").splitlines() if line[:2] != "# "]
            cause = "\n".join(errors).strip() or f"exit code {done.returncode}"
            raise HostError(f"{self.host}: firewall: {step}: {cause}")
        return done.stdout.decode()


def _archive(files: Mapping[str, str]) -> bytes:
    """Pack the program and some text files for `tar -x`."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for file in FILES:
            archive.add(file, arcname=file.name, filter=_as_root)
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode = 0o644
    return entry


def _sections(shown: str) -> dict[str, list[str]]:
    """Split what `firewall.sh show` prints at its `[section]` lines."""
    sections: dict[str, list[str]] = {}
    for line in shown.splitlines():
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), [])
        else:
            current.append(line)
    return sections


def _refusal(connection: _Connection, props: Mapping[str, Any], seconds: float) -> str | None:
    """Say why not to go on: the host sees the operator at an address that the guard did not judge."""
    if props["allow_lockout"]:
        return None
    seen = connection.operator(seconds)
    if seen in props["operator"]:
        return None
    return (
        f"{connection.host}: firewall: this host sees you at {seen}, but the policies were checked for "
        f"{', '.join(props['operator'])}. Nothing was changed; set firewall.operator: [{seen}]"
    )


def _apply(props: Mapping[str, Any]) -> dict[str, Any]:
    """Load the documents, confirm them over a new connection, and return the resource's properties."""
    connection = _Connection(props)
    window = int(props["undo_seconds"])
    change = secrets.token_hex(8)
    with ThreadPoolExecutor(max_workers=1) as pool:
        looked = pool.submit(_reach, props, {} if props["allow_lockout"] else props["probes"])
        if refusal := _refusal(connection, props, STEP_SECONDS):
            raise HostError(refusal)
        before = looked.result()
    files = {
        "rules.v4": restore_document(props["ipv4"], props["policies"]),
        "rules.v6": restore_document(props["ipv6"], props["policies"]),
        "sets": restore_sets(props["sets"]),
        "change": f"{change}\n",
    }
    armed = time.monotonic()
    connection.firewall("apply", str(window), files=files)
    took = time.monotonic() - armed
    if broken := _broken(props, before):
        raise HostError(_undo(connection, props, broken))
    shown = _sections(_confirm(connection, change, window, took))
    loaded = {family: "\n".join(shown[program]) for family, program in FAMILIES.items()}
    return {**props, "loaded": loaded, "drift": []}


def _reach(props: Mapping[str, Any], probes: Probes, patience: float = 0) -> dict[Key, str]:
    if not probes:
        return {}
    return reach(
        {host: _ssh(props, host) for host in props["addresses"]},
        props["addresses"],
        probes,
        patience=patience,
    )


def _ssh(props: Mapping[str, Any], host: str) -> str:
    options = "-o ControlMaster=no -o ControlPath=none -o BatchMode=yes -o ConnectTimeout=5"
    return f"ssh -F {shlex.quote(str(PROJECT / str(props['ssh_config'])))} {options} {host}"


def _broken(props: Mapping[str, Any], before: Mapping[Key, str]) -> dict[Key, str]:
    """Find the flows that came about before a change and no longer do.

    Args:
        props: The resource's properties.
        before: The flows that came about, with the address that their packets come from.
    """
    patience = min(PATIENCE_SECONDS, int(props["undo_seconds"]) / PATIENCE_PART)
    after = _reach(props, only(props["probes"], list(before)), patience)
    return {key: source for key, source in before.items() if key not in after}


def _undo(connection: _Connection, props: Mapping[str, Any], broken: Mapping[Key, str]) -> str:
    """Say which rule breaks flows, while it is loaded, and have the host undo the change."""
    flows = [f"{props['probes'][origin][target]} from {origin} to {target}" for origin, target in broken]
    found = None
    asked = next(((key, source) for key, source in broken.items() if key[0] != OPERATOR), None)
    if asked:
        (origin, target), source = asked
        host, _, port = target.rpartition(":")
        ends = [
            End(origin, source, _ssh(props, origin)),
            End(host, props["addresses"][host], _ssh(props, host)),
        ]
        found = obstacle(ends[0], ends[1], int(port))
    try:
        connection.firewall("undo")
        undone = "the host has put back what it had before (seen)"
    except HostError as error:
        undone = f"the host undoes them within {props['undo_seconds']} s ({error})"
    cause = f"{found}. " if found else ""
    return (
        f"{connection.host}: firewall: the new rules were loaded, and what the lab itself needs no longer "
        f"came about, which it did before: {'; '.join(flows)}. {cause}They are not confirmed: {undone}. "
        "Change the rule that stops it, or set allowLockout: true on its policy, then run `pulumi up` again"
    )


def _confirm(connection: _Connection, change: str, window: int, took: float) -> str:
    """Confirm a change, or hear that the host has undone it.

    Args:
        connection: How the host is reached.
        change: The change's name.
        window: Seconds after which the host undoes it; they began before it was loaded.
        took: How many seconds it took the host to load it, at most.

    Raises:
        HostError: It is not confirmed.
    """
    causes: list[str] = []
    end = time.monotonic() + window + GRACE_SECONDS
    # Also after its time: an answer that was lost may have been a confirmation, and the host knows.
    while not causes or (UNDONE not in causes[-1] and time.monotonic() < end):
        try:
            return connection.firewall("confirm", change, seconds=max(1.0, end - time.monotonic()))
        except HostError as error:
            causes.append(str(error))
            time.sleep(0.5)
    undone = UNDONE in causes[-1]
    seen = "the host has put back what it had before (seen)" if undone else "look at it from its console"
    if undone and took > window:
        raise HostError(
            f"{connection.host}: firewall: the host took {took:.0f} s to load the new rules, longer than it "
            f"waits for their confirmation; {seen}. Set firewall.undoSeconds above {took:.0f}, then run "
            "`pulumi up` again"
        )
    raise HostError(
        f"{connection.host}: firewall: the new rules were loaded, but no new SSH connection confirmed them "
        f"({causes[0]}); {seen}. Find the rule that cuts it off and change it, then run `pulumi up` again"
    )


def inputs(
    *,
    host: str,
    url: str,
    machine: Input[str],
    ssh_config: Input[str],
    compiled: Compiled,
    operator: Sequence[str],
    probes: Probes,
    addresses: Mapping[str, str],
    undo_seconds: int,
    allow_lockout: bool,
) -> dict[str, Any]:
    """What the provider is given of a host's firewall.

    Args:
        host: Its name.
        url: Its destination for ssh(1).
        machine: What tells it from one that takes its place.
        ssh_config: Path, from the project's folder, of the ssh_config(5) by which hosts are reached.
        compiled: What it loads.
        operator: The addresses that the guard takes for the operator's.
        probes: What is tried before a change is confirmed.
        addresses: The addresses of the lab's hosts.
        undo_seconds: After how many seconds without confirmation it undoes a change.
        allow_lockout: Whether a change is applied whatever it cuts.
    """
    return {
        "host": host,
        "url": url,
        "machine": machine,
        "ssh_config": ssh_config,
        **vars(compiled),
        "operator": list(operator),
        "probes": probes,
        "addresses": dict(addresses),
        "undo_seconds": undo_seconds,
        "allow_lockout": allow_lockout,
        "program": program_digest(),
    }


# By another login or port it is reached as before, which a new connection has to confirm.
COMPARED = ("policies", "ipv4", "ipv6", "sets", "program", "url")
ASKED_WITH = ("host", "url", "ssh_config", "operator", "allow_lockout")
"""What a host is asked with at a preview; where some of it is unknown, only the update asks."""


class HostFirewallProvider(dynamic.ResourceProvider):
    """Applies, reads and removes the firewall of one host."""

    def check(self, olds: Mapping[str, Any], news: dict[str, Any]) -> dynamic.CheckResult:
        """Refuse in the preview what applying would refuse, where the host is there already to be asked."""
        changed = differ(COMPARED, olds, news) and is_known([news[key] for key in ASKED_WITH])
        try:
            refusal = _refusal(_Connection(news), news, LOOK_SECONDS) if changed else None
        except HostError:
            refusal = None
        failures = [dynamic.CheckFailure("operator", refusal)] if refusal else []
        return dynamic.CheckResult(news, failures)

    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        """Load and confirm the rules."""
        with messages_without_traceback():
            return dynamic.CreateResult(f"{props['host']}-firewall", _apply(props))

    def update(self, _id: str, _olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        """Load and confirm other rules."""
        with messages_without_traceback():
            return dynamic.UpdateResult(_apply(news))

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        """Compare what a host would load, and where it is reached; how it is watched is no change of it."""
        replaces = [key for key in ("host", "machine") if olds.get(key) != news.get(key)]
        changed = bool(olds.get("drift")) or differ(COMPARED, olds, news)
        return dynamic.DiffResult(changes=changed or bool(replaces), replaces=replaces)

    def read(self, id_: str, props: Mapping[str, Any]) -> dynamic.ReadResult:
        """Look for drift on the host."""
        with messages_without_traceback():
            shown = _Connection(props).firewall("show")
            drift = drift_of_host(props["loaded"], props["sets"], shown)
            return dynamic.ReadResult(id_, {**props, "drift": drift})

    def delete(self, _id: str, props: Mapping[str, Any]) -> None:
        """Leave nothing on the host."""
        with messages_without_traceback():
            _Connection(props).firewall("remove")


class HostFirewall(dynamic.Resource, module="calico-lab", name="HostFirewall"):
    """The firewall rules that one host has loaded.

    Another `machine` under the same name is another host: it has none of the rules, and gets them anew.
    """

    policies: Output[list[str]]
    """The names of the policies, in the order in which they are read."""
    ipv4: Output[Chains]
    """The rules of iptables."""
    ipv6: Output[Chains]
    """The rules of ip6tables."""
    sets: Output[dict[str, str]]
    """The members of each set, a line each."""
    loaded: Output[dict[str, str]]
    """The kernel's listing of our chains right after loading, by family."""
    drift: Output[list[str]]
    """What differed on the host from what was loaded, when it was looked at last (`pulumi refresh`)."""

    def __init__(self, name: str, given: Mapping[str, Any], opts: ResourceOptions | None = None) -> None:
        """Declare the firewall of a host of which the provider is given what `inputs` makes."""
        super().__init__(HostFirewallProvider(), name, {**given, "loaded": None, "drift": None}, opts)
