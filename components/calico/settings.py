"""NetworkSettings: stores the applied network settings; validates changes on each host, at preview if it can.

Owes: a change is refused before anything changes if a host's kernel or link does not support it, if a host
uses addresses of the pool for something else, or if other containers than the lab's are attached to the
network. A preview says what a change does to running containers.

The network makes the whole pool unreachable from a host, except the addresses of containers
(`calico-lab-calico-startup.service`). That cuts off an operator with an address in the pool. So a host
without that route tries it first, with a rollback timer, and a new SSH connection has to confirm it
(`try-route.sh`). Only then are the network's files installed, and with them the route at boot.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pulumi import ResourceOptions, dynamic

from components.hosts.host import after_hosts
from components.hosts.remote import HostError, messages_without_traceback, run
from components.hosts.ssh import write_access
from components.shared.provider import differ, is_known, tell

if TYPE_CHECKING:
    from components.calico.config import CalicoConfig
    from components.hosts.host import Host

_SCRIPT = Path(__file__).with_name("scripts") / "check-settings.sh"
_CANNOT = 3
"""Exit status of check-settings.sh on a host that does not support the settings."""
_TRIAL = Path(__file__).with_name("scripts") / "try-route.sh"
_UNDONE = 3
"""Exit status of try-route.sh on a host that has removed the route already."""
LOOK_SECONDS = 5
"""Time limit at a preview for a host that may not exist."""
ASK_SECONDS = 30
TRIAL_SECONDS = 15
"""How long a host waits for the confirmation of a route before it removes it."""
CONFIRM_SECONDS = 5
"""Time limit of one attempt to confirm."""
GRACE_SECONDS = 10
"""How long after its timer a host may need to report that it has removed the route."""

COMPARED = (
    *("pool", "mtu", "dataplane", "encapsulation", "wireguard", "overhead", "reflectors"),
    # A new host has to support the settings.
    "hosts",
)
REPLACING = {"pool": "the pool", "mtu": "the containers' MTU"}
"""The settings whose change replaces the Docker network and the containers on it."""


def effects(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """Say what a change of the settings does to running containers, a sentence each."""
    sentences = []
    for key, what in REPLACING.items():
        if olds[key] != news[key]:
            before, after = (_value(props[key]) for props in (olds, news))
            sentences.append(
                f"{what} changes from {before} to {after}: the network and the lab's containers on it are "
                "replaced"
            )
    if not sentences and any(olds[key] != news[key] for key in ("encapsulation", "wireguard")):
        sentences.append(
            f"encapsulation changes from {_encapsulation(olds)} to {_encapsulation(news)}: containers keep "
            "running, with their addresses. Connections between hosts pause for some seconds; an interface "
            "has its new MTU only when its container restarts"
        )
    before = olds["dataplane"]
    if before != news["dataplane"]:
        sentences.append(
            f"the dataplane changes from {before} to {news['dataplane']}: containers keep running, "
            "with their addresses. Connections pause for some seconds while Felix replaces one by the "
            "other"
        )
    if olds["reflectors"] != news["reflectors"]:
        sentences.append(
            f"BGP changes from {_topology(olds)} to {_topology(news)}: containers keep running. Connections "
            "between hosts pause for some seconds until the sessions are established again"
        )
    return sentences


def _value(value: str | float) -> str:
    # The engine returns numbers as floats.
    return value if isinstance(value, str) else str(int(value) or "that of the link")


def _encapsulation(props: Mapping[str, Any]) -> str:
    return f"{props['encapsulation']}{' with WireGuard' if props['wireguard'] else ''}"


def _topology(props: Mapping[str, Any]) -> str:
    return f"route reflectors on {', '.join(props['reflectors'])}" if props["reflectors"] else "a full mesh"


@dataclass(frozen=True)
class Refusal:
    """Why a host cannot have the settings."""

    host: str
    key: str
    """The setting; empty if the host could not be asked."""
    why: str

    def __str__(self) -> str:
        return f"network: {self.why}. Nothing was changed"


def described(config: "CalicoConfig", hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of a network, as properties of the resource.

    Args:
        config: The network's section.
        hosts: By host: its `address`, the `ssh` command that reaches it, whether it is `made` by the lab, and
            how it is reached while the command is unknown (`exists`).
    """
    return {
        "pool": config.pool,
        "cidr": str(config.cidr),
        "mtu": config.mtu or 0,
        "dataplane": config.dataplane,
        "encapsulation": config.encapsulation,
        "wireguard": config.wireguard,
        "overhead": config.overhead,
        "reflectors": list(config.route_reflectors),
        "hosts": hosts,
    }


def _refusal(
    host: str, reached: Mapping[str, Any], variables: Mapping[str, str], seconds: float
) -> Refusal | None:
    own = {"HOST": host, "ADDRESS": str(reached["address"])}
    exists = reached.get("exists")
    if is_known(reached):
        answer = run(str(reached["ssh"]), _SCRIPT.read_text(), {**own, **variables}, seconds)
    elif exists and is_known(exists):
        # At the first preview the stack has no SSH access yet.
        with TemporaryDirectory() as folder:
            write_access(Path(folder), [exists], Path(exists["identity"]) if exists["identity"] else None)
            ssh = f"ssh -F {folder}/config {host}"
            answer = run(ssh, _SCRIPT.read_text(), {**own, **variables}, seconds)
    else:
        return Refusal(host, "", f"{host}: how it is reached is not known yet")
    if answer.status == 0:
        return None
    if answer.status == _CANNOT:
        key, _, why = answer.error.partition(" ")
        return Refusal(host, key, why)
    reason = answer.error if answer.error.startswith(f"{host}: ") else f"{host}: {answer.error}"
    return Refusal(host, "", reason)


def refusals(olds: Mapping[str, Any], news: Mapping[str, Any], seconds: float) -> list[Refusal]:
    """Ask the hosts that a change concerns why they cannot have the settings.

    Args:
        olds: The former settings, as from `described`; empty if there are none.
        news: The new settings.
        seconds: Time limit for each host.
    """
    replaced = "pool" in olds and any(olds[key] != news[key] for key in REPLACING)
    plain = news["encapsulation"] == "none" and news["dataplane"] == "iptables"
    same = plain and not news["wireguard"] and not news["mtu"] and not replaced
    before = olds.get("hosts", {})
    # An existing host with another address is another host: the former one leaves.
    stay = {
        host
        for host, reached in before.items()
        if host in news["hosts"] and (reached["made"] or reached["address"] == news["hosts"][host]["address"])
    }
    new = _without_route(olds, news)
    network = str(olds["pool"]).partition(":")[0] if "pool" in olds else ""
    kinds = ["vxlan"] if news["encapsulation"] != "none" else []
    wanted = {
        "KINDS": " ".join([*kinds, *(["wireguard"] if news["wireguard"] else [])]),
        "DATAPLANE": str(news["dataplane"]),
        "MTU": str(int(news["mtu"]) or ""),
        "OVERHEAD": str(int(news["overhead"])),
        "NETWORK": network if replaced else "",
        "LEAVING": "",
    }
    # When a host's node is deleted from the datastore, the addresses of all its containers are released.
    leaving = {"KINDS": "", "DATAPLANE": "", "MTU": "", "NETWORK": network, "LEAVING": "yes", "CIDR": ""}

    def ask(host: str) -> Refusal | None:
        cidr = str(news["cidr"]) if host in new else ""
        return _refusal(host, news["hosts"][host], {**wanted, "CIDR": cidr}, seconds)

    def ask_leaving(host: str) -> Refusal | None:
        refusal = _refusal(host, before[host], leaving, seconds)
        # A dead host may leave, because nothing runs there.
        return refusal if refusal and refusal.key else None

    asked = [(ask, host) for host in news["hosts"] if not same or host in new]
    asked += [(ask_leaving, host) for host in before if host not in stay]
    with ThreadPoolExecutor(max_workers=len(asked) or 1) as pool:
        answers = pool.map(lambda question: question[0](question[1]), asked)
        return [refusal for refusal in answers if refusal]


def _without_route(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """The hosts that do not have the route yet that makes the pool unreachable."""
    before = olds.get("hosts", {}) if olds.get("pool") == news["pool"] else {}
    return [
        host
        for host, reached in news["hosts"].items()
        if host not in before or before[host]["address"] != reached["address"]
    ]


def try_route(host: str, ssh: str, cidr: str) -> Refusal | None:
    """Install the network's route on a host with a rollback timer, and confirm it over a new SSH connection.

    A confirmed route is removed too: the network installs its own.

    Args:
        host: The host.
        ssh: The ssh command that reaches it.
        cidr: The network's addresses.
    """
    script, variables = _TRIAL.read_text(), {"CIDR": cidr, "SECONDS_ALLOWED": str(TRIAL_SECONDS)}
    installed = run(ssh, script, {**variables, "STEP": "install"}, TRIAL_SECONDS)
    if installed.reached and installed.status:
        return Refusal(host, "", f"{host}: the route to {cidr} cannot be tried: {installed.error}")
    # If the route cuts off this session there is no answer; the host knows the outcome.
    end = time.monotonic() + TRIAL_SECONDS + GRACE_SECONDS
    causes: list[str] = [] if installed.reached else [installed.error]
    while True:
        answer = run(ssh, script, {**variables, "STEP": "confirm"}, CONFIRM_SECONDS)
        if answer.status == 0:
            return None
        undone = answer.status == _UNDONE
        if not undone:
            causes.append(answer.error)
        if undone or time.monotonic() >= end:
            break
        time.sleep(0.5)
    why = causes[0] if causes else f"none within {TRIAL_SECONDS} s"
    seen = "the host has removed the route again (seen)" if undone else "look at it from its console"
    return Refusal(
        host,
        "cidr",
        f"{host}: with network.cidr {cidr} made unreachable, as the network does, no new SSH connection came "
        f"through ({why}); {seen}. Where you reach it from lies in network.cidr: give network.cidr, and the "
        "addresses in it, another private network",
    )


def _try_routes(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[Refusal]:
    hosts = _without_route(olds, news)
    with ThreadPoolExecutor(max_workers=len(hosts) or 1) as pool:
        tried = pool.map(lambda host: try_route(host, news["hosts"][host]["ssh"], news["cidr"]), hosts)
        return [refusal for refusal in tried if refusal]


def _require(olds: Mapping[str, Any], news: Mapping[str, Any]) -> None:
    with messages_without_traceback():
        for refusal in refusals(olds, news, ASK_SECONDS) or _try_routes(olds, news):
            raise HostError(str(refusal))


def _are_named(hosts: object) -> bool:
    """Whether the hosts are known; how each is reached may be unknown."""
    return isinstance(hosts, Mapping) and all(isinstance(reached, Mapping) for reached in hosts.values())


class _NetworkSettingsProvider(dynamic.ResourceProvider):
    def check(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.CheckResult:
        # A preview asks the hosts that it can reach; the update asks all.
        if not is_known({**news, "hosts": None}) or not _are_named(news["hosts"]):
            return dynamic.CheckResult(dict(news), [])
        changed = any(olds.get(key) != news[key] for key in news)
        refused = refusals(olds, news, LOOK_SECONDS) if changed else []
        # A host that does not answer may not exist yet; the update asks again.
        failures = [dynamic.CheckFailure(refusal.key, str(refusal)) for refusal in refused if refusal.key]
        if "pool" in olds and not failures:
            tell(f"network: {sentence}" for sentence in effects(olds, news))
        return dynamic.CheckResult(dict(news), failures)

    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        _require({}, props)
        return dynamic.CreateResult("mode", dict(props))

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        return dynamic.DiffResult(changes=differ(COMPARED, olds, news))

    def update(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        _require(olds, news)
        return dynamic.UpdateResult(dict(news))


class NetworkSettings(dynamic.Resource, module="calico-lab", name="NetworkSettings"):
    """The applied settings of the network."""

    def __init__(
        self,
        name: str,
        config: "CalicoConfig",
        hosts: Sequence["Host"],
        opts: ResourceOptions | None = None,
    ) -> None:
        """Store the settings.

        Args:
            name: The resource's name.
            config: The network's section.
            hosts: The hosts on the network.
            opts: More resource options, usually the parent.
        """
        reached = {
            host.name: {
                "address": host.address,
                "ssh": host.ssh,
                "made": host.container is not None,
                "exists": host.exists,
            }
            for host in hosts
        }
        props = described(config, reached)
        super().__init__(_NetworkSettingsProvider(), name, props, after_hosts(hosts, opts))
