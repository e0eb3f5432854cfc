"""Membership: stores the members and the token of the bootstrap, and refuses changes of them at preview.

etcd reads the list of members at a member's first start only. After a change, the former members would keep
their list, and a new one would start a cluster of its own that never gets a quorum.

A member whose host container is replaced loses its data, and joins the cluster again (`health.sh`) while the
others are a quorum. So replacing more hosts at a time is refused, unless all hosts of the lab are replaced,
and the cluster with them.

The resource is created before any member starts, so the cluster that it describes may have never started.
Before a refusal the hosts are asked.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from pulumi import ResourceOptions, dynamic

from components.hosts.remote import PROJECT, run
from components.hosts.ssh import access_folder
from components.shared.provider import StoringProvider, is_known, tell

LOOK_SECONDS = 5
"""Time limit for a host that may not exist."""
BEGUN = 3
HAS_BEGUN = f"[ ! -d /var/lib/calico-lab/etcd/member/wal ] || exit {BEGUN}"
"""A member's write-ahead log begins with the list of members, which is valid from then on."""


def refusals(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[dynamic.CheckFailure]:
    """Say why a cluster that was bootstrapped with `olds` cannot become `news`; empty if it can."""
    before, after = olds["members"], news["members"]
    wrong = [("members", f"{name} is a new member") for name in after if name not in before]
    wrong += [("members", f"{name} is a member and no longer named") for name in before if name not in after]
    wrong += [
        ("members", f"{name} answers its peers at {before[name]} and not at {after[name]}")
        for name in after
        if name in before and before[name] != after[name]
    ]
    if olds["token"] != news["token"]:
        wrong.append(("token", f"its token is {olds['token']} and not {news['token']}"))
    return [
        dynamic.CheckFailure(
            key,
            f"etcd.{key}: the cluster runs already, and {reason}. Members and token are set when a cluster "
            "is created: put the old value back, or create it again with 'pulumi destroy' and 'pulumi up'",
        )
        for key, reason in wrong
    ]


def replaced(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """The hosts whose containers are replaced."""
    before, after = olds["hosts"], news["hosts"]
    return [host for host in before if host in after and before[host] != after[host]]


def quorum_refusals(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[dynamic.CheckFailure]:
    """Say why hosts cannot be replaced: the cluster would lose its quorum. Empty if it would not."""
    hosts = replaced(olds, news)
    members = olds["members"]
    lost = [member for member in members if member in hosts]
    spare = (len(members) - 1) // 2
    if len(lost) <= spare or len(hosts) == len(olds["hosts"]):
        return []
    much = f"change at most {spare} of them at a time" if spare else "it has none to spare"
    reason = (
        f"etcd.members: the hosts {', '.join(lost)} would be replaced, and the data of these members lost; "
        f"of {len(members)} members a quorum has to stay: {much}. Or create the lab again with "
        "'pulumi destroy' and 'pulumi up'. Nothing was changed"
    )
    return [dynamic.CheckFailure("members", reason)]


def effects(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """Say what the replacement of hosts does to the cluster, a sentence each."""
    hosts = replaced(olds, news)
    lost = [member for member in olds["members"] if member in hosts]
    if not lost:
        return []
    if len(hosts) == len(olds["hosts"]):
        return [
            "etcd: every host of the lab is replaced, and the cluster with them: its data are lost, except "
            "what the lab writes there itself"
        ]
    subject = f"hosts {' and '.join(lost)} are" if len(lost) > 1 else f"host {lost[0]} is"
    return [f"etcd: the {subject} replaced: a member there loses its data, and joins the cluster again"]


def has_begun(members: Mapping[str, str], ssh_config: str) -> bool:
    """Whether a cluster of these members has started. If no member can be asked, it is assumed to have.

    Args:
        members: Peer URL by member.
        ssh_config: Path, from the project's folder, of the ssh_config(5) for the members.
    """
    if not (PROJECT / ssh_config).is_file():
        return True

    def ask(member: str) -> int:
        # The file may have another address by now.
        ssh = f"ssh -F {ssh_config} -o HostName={urlsplit(members[member]).hostname} {member}"
        return run(ssh, HAS_BEGUN, seconds=LOOK_SECONDS).status

    with ThreadPoolExecutor(max_workers=len(members)) as pool:
        answers = list(pool.map(ask, members))
    return BEGUN in answers or 0 not in answers


class _MembershipProvider(StoringProvider):
    compared = ("token", "members", "hosts")

    def check(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.CheckResult:
        if "members" not in olds or not is_known(news):
            return dynamic.CheckResult(dict(news), [])
        wrong = [*refusals(olds, news), *quorum_refusals(olds, news)]
        warnings = effects(olds, news)
        if (wrong or warnings) and not has_begun(olds["members"], news["ssh_config"]):
            return dynamic.CheckResult(dict(news), [])
        tell([] if wrong else warnings)
        return dynamic.CheckResult(dict(news), wrong)


class Membership(dynamic.Resource, module="calico-lab", name="Membership"):
    """The members and the token of the bootstrap."""

    def __init__(
        self,
        name: str,
        token: str,
        members: Mapping[str, str],
        hosts: Mapping[str, str],
        opts: ResourceOptions | None = None,
    ) -> None:
        """Store the bootstrap.

        Args:
            name: The resource's name.
            token: The cluster's token.
            members: Peer URL by member.
            hosts: `Host.replacement_digest` of each host container of the lab, member or not.
            opts: More resource options, usually the parent.
        """
        props = {
            "token": token,
            "members": dict(members),
            "hosts": dict(hosts),
            "ssh_config": f"{access_folder()}/config",
        }
        super().__init__(_MembershipProvider(), name, props, opts)
