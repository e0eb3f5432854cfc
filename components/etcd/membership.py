"""The list of members that a cluster was bootstrapped with, kept so that it is not changed by accident.

etcd reads the list at a member's first start only. A changed list would leave the old members as they are
and give a new one a cluster of its own, which never gets a quorum. So a change is refused, and the preview
says so already.

A member whose machine is made anew loses its data. It takes its place in the cluster again (`health.sh`)
while the others are a quorum; so what takes more of them at a time is refused. Only where the whole lab is
made anew is its cluster, too.

The list is written down before anything is done on a host, because what is wrong has to be refused before it,
too. So it may be that of a cluster that has never begun: the hosts are asked.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from pulumi import ResourceOptions, dynamic

from components.hosts.remote import PROJECT, run
from components.hosts.ssh import access_folder
from components.shared.provider import differ, is_known, tell

LOOK_SECONDS = 5
"""What is waited for a host that may not be there."""
BEGUN = 3
HAS_BEGUN = f"[ ! -d /var/lib/calico-lab/etcd/member/wal ] || exit {BEGUN}"
"""A member's log begins with the list of members, which it goes by from then on."""
COMPARED = ("token", "members", "machines")


def refusals(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[dynamic.CheckFailure]:
    """Say why a cluster that was bootstrapped with `olds` cannot become `news`, if it cannot."""
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
            "is made: put the old value back, or make it anew with 'pulumi destroy' and 'pulumi up'",
        )
        for key, reason in wrong
    ]


def made_anew(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """The hosts whose machines are made anew; a lab of an earlier program does not know."""
    before, after = olds.get("machines", {}), news["machines"]
    return [host for host in before if host in after and before[host] != after[host]]


def quorum_refusals(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[dynamic.CheckFailure]:
    """Say why machines cannot be made anew, if the cluster would have no quorum without them."""
    anew = made_anew(olds, news)
    members = olds["members"]
    lost = [member for member in members if member in anew]
    spare = (len(members) - 1) // 2
    if len(lost) <= spare or len(anew) == len(olds["machines"]):
        return []
    much = f"change at most {spare} of them at a time" if spare else "it has none to spare"
    reason = (
        f"etcd.members: the machines of {', '.join(lost)} would be made anew, and the data of these members "
        f"go with them; of {len(members)} members a quorum has to stay: {much}. Or make the lab anew with "
        "'pulumi destroy' and 'pulumi up'. Nothing was changed"
    )
    return [dynamic.CheckFailure("members", reason)]


def consequences(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """Say what becomes of the cluster when machines are made anew, a sentence each."""
    anew = made_anew(olds, news)
    lost = [member for member in olds["members"] if member in anew]
    if not lost:
        return []
    if len(anew) == len(olds["machines"]):
        return [
            "etcd: every machine of the lab is made anew, and the cluster with them: what is in it is lost, "
            "but for what the lab writes there itself"
        ]
    return [
        f"etcd: the machine of {' and that of '.join(lost)} is made anew: the member loses its data, and "
        "takes its place in the cluster again"
    ]


def has_begun(members: Mapping[str, str], ssh_config: str) -> bool:
    """Whether a cluster of these members has begun; it may have where none of them can be asked.

    Args:
        members: Peer URL by member.
        ssh_config: Path, from the project's folder, of the ssh_config(5) by which they are reached.
    """
    if not (PROJECT / ssh_config).is_file():
        return True

    def ask(member: str) -> int:
        # The file may name another address already.
        ssh = f"ssh -F {ssh_config} -o HostName={urlsplit(members[member]).hostname} {member}"
        return run(ssh, HAS_BEGUN, seconds=LOOK_SECONDS).status

    with ThreadPoolExecutor(max_workers=len(members)) as pool:
        answers = list(pool.map(ask, members))
    return BEGUN in answers or 0 not in answers


class _MembershipProvider(dynamic.ResourceProvider):
    def check(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.CheckResult:
        if "members" not in olds or not is_known(news):
            return dynamic.CheckResult(dict(news), [])
        wrong = [*refusals(olds, news), *quorum_refusals(olds, news)]
        told = consequences(olds, news)
        if (wrong or told) and not has_begun(olds["members"], news["ssh_config"]):
            return dynamic.CheckResult(dict(news), [])
        tell([] if wrong else told)
        return dynamic.CheckResult(dict(news), wrong)

    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        return dynamic.CreateResult(props["token"], dict(props))

    def diff(self, _id: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.DiffResult:
        return dynamic.DiffResult(changes=differ(COMPARED, olds, news))

    def update(self, _id: str, _olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.UpdateResult:
        return dynamic.UpdateResult(dict(news))


class Membership(dynamic.Resource, module="calico-lab", name="Membership"):
    """The members and the token that the cluster was bootstrapped with."""

    def __init__(
        self,
        name: str,
        token: str,
        members: Mapping[str, str],
        machines: Mapping[str, str],
        opts: ResourceOptions | None = None,
    ) -> None:
        """Remember the bootstrap.

        Args:
            name: The resource's name.
            token: The cluster's token.
            members: Peer URL by member.
            machines: What each machine of the lab is made by, members or not; none that it does not make.
            opts: More resource options, usually the parent.
        """
        props = {
            "token": token,
            "members": dict(members),
            "machines": dict(machines),
            "ssh_config": f"{access_folder()}/config",
        }
        super().__init__(_MembershipProvider(), name, props, opts)
