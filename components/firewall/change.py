"""One change of a host's firewall: loaded, tested, and confirmed over a new connection; else rolled back.

1. `apply` arms the rollback timer, keeps the loaded documents and loads the new ones.
2. The flows that must stay open are tried from the hosts that open them. If one that was open before the
   change is not open now, the change is rolled back at once.
3. `confirm`, over a new connection, stops the timer. An open session proves nothing, because established
   connections are accepted before any rule.
"""

import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from components.firewall.drift import listing
from components.firewall.payload import restore_sets
from components.firewall.rules.compile import restore_document
from components.firewall.rules.resolve import OPERATOR
from components.firewall.session import STEP_SECONDS, HostSession, new_connection
from components.hosts.remote import HostError
from diagnosis.obstacle import SshHost, obstacle
from diagnosis.reachability import Key, Probes, only, reach

# A part of the host's answer to a confirmation that comes too late.
ROLLED_BACK = "the change is rolled back already"
# How long after its window a host may take to roll back, and to say so.
GRACE_SECONDS = 10
# How long flows are tried after a change: at most this, and at most this part of the window. The rest of the
# window is for finding the rule while it is loaded.
FLOW_SECONDS = 3.0
FLOW_PART = 5
# How long to wait between two attempts to confirm.
RETRY_SECONDS = 0.5


def session(props: Mapping[str, Any]) -> HostSession:
    """A session on the host of a resource."""
    return HostSession(str(props["host"]), str(props["url"]), str(props["ssh_config"]))


def operator_problem(host: HostSession, props: Mapping[str, Any], seconds: float) -> str | None:
    """Check that the host sees the operator at an address that the guard has checked.

    Returns:
        The problem, if there is one and `allow_lockout` is not set.

    Raises:
        HostError: The host cannot be reached.
    """
    if props["allow_lockout"]:
        return None
    address = host.operator_address(seconds)
    if address in props["operator"]:
        return None
    return (
        f"{host.host}: firewall: this host sees you at {address}, but the policies were checked for "
        f"{', '.join(props['operator'])}. Nothing was changed; set firewall.operator: [{address}]"
    )


def apply_change(props: Mapping[str, Any]) -> dict[str, Any]:
    """Load the documents and confirm them; return the resource's properties.

    Raises:
        HostError: The change was refused, or it was not confirmed.
    """
    host = session(props)
    window = int(props["undo_seconds"])
    change = secrets.token_hex(8)
    with ThreadPoolExecutor(max_workers=1) as pool:
        before = pool.submit(_open_flows, props, {} if props["allow_lockout"] else props["probes"])
        if problem := operator_problem(host, props, STEP_SECONDS):
            raise HostError(problem)
        open_before = before.result()
    documents = {
        "rules.v4": restore_document(props["ipv4"], props["policies"]),
        "rules.v6": restore_document(props["ipv6"], props["policies"]),
        "sets": restore_sets(props["sets"]),
        "change": f"{change}\n",
    }
    armed = time.monotonic()
    host.run_verb("apply", str(window), documents=documents)
    load_seconds = time.monotonic() - armed
    if blocked := _blocked_flows(props, open_before):
        raise HostError(_roll_back(host, props, blocked))
    return {**props, "loaded": listing(_confirm(host, change, window, load_seconds)), "drift": []}


def _open_flows(props: Mapping[str, Any], probes: Probes, patience: float = 0) -> dict[Key, str]:
    if not probes:
        return {}
    ssh = {name: _ssh(props, name) for name in props["addresses"]}
    return reach(ssh, props["addresses"], probes, patience=patience)


def _ssh(props: Mapping[str, Any], host: str) -> str:
    return new_connection(str(props["ssh_config"]), host, connect_seconds=5)


def _blocked_flows(props: Mapping[str, Any], open_before: Mapping[Key, str]) -> dict[Key, str]:
    """Find the flows that were open before a change and are not open now.

    Args:
        props: The resource's properties.
        open_before: The flows that were open, with the source address of their packets.
    """
    patience = min(FLOW_SECONDS, int(props["undo_seconds"]) / FLOW_PART)
    after = _open_flows(props, only(props["probes"], list(open_before)), patience)
    return {key: source for key, source in open_before.items() if key not in after}


def _roll_back(host: HostSession, props: Mapping[str, Any], blocked: Mapping[Key, str]) -> str:
    """Find the rule that blocks flows while it is loaded, then roll the change back; return the message."""
    flows = [f"{props['probes'][origin][target]} from {origin} to {target}" for origin, target in blocked]
    cause = ""
    between_hosts = next(((key, source) for key, source in blocked.items() if key[0] != OPERATOR), None)
    if between_hosts:
        (origin, target), address = between_hosts
        name, _, port = target.rpartition(":")
        found = obstacle(
            SshHost(origin, address, _ssh(props, origin)),
            SshHost(name, props["addresses"][name], _ssh(props, name)),
            int(port),
        )
        cause = f"{found}. " if found else ""
    try:
        host.run_verb("undo")
        outcome = "the host has put back what it had before (seen)"
    except HostError as error:
        outcome = f"the host rolls them back within {props['undo_seconds']} s ({error})"
    return (
        f"{host.host}: firewall: the new rules were loaded, and flows that the lab needs, which were open "
        f"before, are not open now: {'; '.join(flows)}. {cause}They are not confirmed: {outcome}. Change the "
        "rule that blocks them, or set allowLockout: true on its policy, then run `pulumi up` again"
    )


def _confirm(host: HostSession, change: str, window: int, load_seconds: float) -> str:
    """Confirm a change; return the output of `firewall.sh show`.

    It is tried also after the window, because a confirmation may have succeeded and its answer may be lost.

    Args:
        host: The host.
        change: The identifier of the change.
        window: Seconds after which the host rolls back, counted from before the documents were loaded.
        load_seconds: The time from then until the host had loaded them, or less.

    Raises:
        HostError: The change is not confirmed.
    """
    causes: list[str] = []
    end = time.monotonic() + window + GRACE_SECONDS
    while not causes or (ROLLED_BACK not in causes[-1] and time.monotonic() < end):
        try:
            return host.run_verb("confirm", change, seconds=max(1.0, end - time.monotonic()))
        except HostError as error:
            causes.append(str(error))
            time.sleep(RETRY_SECONDS)
    rolled_back = ROLLED_BACK in causes[-1]
    outcome = (
        "the host has put back what it had before (seen)" if rolled_back else "look at it from its console"
    )
    if rolled_back and load_seconds > window:
        raise HostError(
            f"{host.host}: firewall: the host took {load_seconds:.0f} s to load the new rules, longer than "
            f"it waits for their confirmation; {outcome}. Set firewall.undoSeconds above {load_seconds:.0f}, "
            "then run `pulumi up` again"
        )
    raise HostError(
        f"{host.host}: firewall: the new rules were loaded, but no new SSH connection confirmed them "
        f"({causes[0]}); {outcome}. Find the rule that cuts it off and change it, then run `pulumi up` again"
    )
