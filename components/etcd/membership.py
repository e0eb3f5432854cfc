"""Membership: stores the members of the cluster and its token, and argues their changes at preview.

Another list of members is shown as the steps that `up` will take, or refused with the reason. For this the
hosts are asked, because only a healthy cluster can change. The steps are taken in the readiness gate
(`convergence.py`). Token, addresses and ports of a running cluster stay: etcd reads the token once, and a
member that answers its peers elsewhere is another one.

A member whose host container is replaced loses its data, and joins the cluster again while the others are a
quorum. So replacing more hosts at a time is refused, unless all hosts of the lab are replaced, and the
cluster with them.

A cluster that has no quorum cannot change. With a new `etcd.restoreFrom` it begins anew with whatever members
the config has.

The resource is created before any member starts, so the cluster that it describes may have never started.
Before a refusal the hosts are asked.
"""

import re
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pulumi import Output, ResourceOptions, dynamic

from components.etcd.convergence import Lab, Report, cluster_of, has_data
from components.etcd.planning import BlockedError, Step, plan, quorum
from components.hosts.remote import PROJECT
from components.hosts.ssh import access_folder
from components.shared.provider import StoringProvider, is_known, tell

if TYPE_CHECKING:
    from components.etcd.config import EtcdConfig

LOOK_SECONDS = 15
"""Time limit for a host that may not answer."""


def refusals(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[dynamic.CheckFailure]:
    """Say what a cluster that was created with `olds` cannot change to become `news`; empty if it can."""
    before, after = olds["members"], news["members"]
    wrong = [
        ("members", f"{name} answers its peers at {before[name]} and not at {after[name]}")
        for name in after
        if name in before and before[name] != after[name]
    ]
    names = {url: name for name, url in before.items()}
    wrong += [
        ("members", f"{name} would have the address of the member {names[url]}, {url}")
        for name, url in after.items()
        if name not in before and url in names
    ]
    if olds["token"] != news["token"]:
        wrong.append(("token", f"its token is {olds['token']} and not {news['token']}"))
    return [
        dynamic.CheckFailure(
            key,
            f"etcd.{key}: the cluster runs already, and {reason}. The addresses of its members and its token "
            "are set when it is created: put the old value back, or create it again with 'pulumi destroy' "
            "and 'pulumi up'",
        )
        for key, reason in wrong
    ]


def change(olds: Mapping[str, Any], news: Mapping[str, Any], reports: Mapping[str, Report]) -> list[Step]:
    """Return the steps from the running cluster to other members.

    Args:
        olds: The former inputs.
        news: The new ones.
        reports: What each host reports, of the former members and the new ones.

    Raises:
        BlockedError: The change is refused.
    """
    if replaced(olds, news):
        raise BlockedError(
            f"hosts would be replaced at the same time ({', '.join(replaced(olds, news))}); change the "
            "members, or replace hosts, first",
            (),
        )
    found = cluster_of(reports)
    if not found:
        silent = [host for host in olds["members"] if not reports.get(host, Report()).reached]
        said = f", and {' and '.join(silent)} {_does(silent)} not answer" if silent else ""
        raise BlockedError(
            f"no member is healthy{said}; a change takes a quorum. Start the members; or set "
            "etcd.restoreFrom with it, to another value than before (latest, or a time), which restores a "
            "snapshot onto the new members",
            (),
        )
    _, cluster = found
    wanted = news["members"]
    silent = [host for host in wanted if host in olds["members"] and not reports.get(host, Report()).reached]
    if silent:
        raise BlockedError(
            f"{' and '.join(silent)} {_does(silent)} not answer; start it, or put another host in its place",
            (),
        )
    if not any(one.started and not one.learner and one.url in wanted.values() for one in cluster.members):
        raise BlockedError(
            f"none of the members that the cluster has, {', '.join(one.name for one in cluster.members)}, "
            "stays; keep one of them, and replace it with another change",
            (),
        )
    return plan(cluster, wanted)


def _does(hosts: list[str]) -> str:
    return "do" if len(hosts) > 1 else "does"


def _refused(blocked: BlockedError) -> dynamic.CheckFailure:
    return dynamic.CheckFailure(
        "members", f"etcd.members: the members cannot change now: {blocked}. Nothing was changed"
    )


def numbered(steps: list[Step]) -> list[str]:
    """The steps as sentences, in their order."""
    sentences = [sentence for step in steps for sentence in step.sentences]
    return [f"etcd: step {number}: {sentence}" for number, sentence in enumerate(sentences, start=1)]


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


def health_refusals(
    olds: Mapping[str, Any], news: Mapping[str, Any], reports: Mapping[str, Report]
) -> list[dynamic.CheckFailure]:
    """Say why hosts cannot be replaced now: the members that stay are no healthy quorum. Empty if they are.

    Args:
        olds: The former inputs.
        news: The new ones.
        reports: What each host reports; empty where none could be asked.
    """
    hosts = replaced(olds, news)
    members = olds["members"]
    if not reports or len(hosts) == len(olds["hosts"]) or not set(hosts) & set(members):
        return []
    healthy = [one for one in members if one not in hosts and reports.get(one, Report()).state.healthy]
    if len(healthy) >= quorum(len(members)):
        return []
    reason = (
        f"etcd.members: {' and '.join(hosts)} would be replaced while of the other members "
        f"{' and '.join(healthy) or 'none'} alone is healthy; of {len(members)} members a quorum of "
        f"{quorum(len(members))} has to stay. First take this change back, and run 'pulumi up' until "
        "'lab status' is healthy. Nothing was changed"
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


def survey(olds: Mapping[str, Any], news: Mapping[str, Any]) -> dict[str, Report]:
    """Ask the hosts of the former members and of the new ones; empty if this controller cannot."""
    config = news["ssh_config"]
    if not (PROJECT / config).is_file():
        return {}
    members = {**news["members"], **olds["members"]}
    # A host that this update adds is not in the file.
    hosts = re.findall(r"^Host (\S+)$", (PROJECT / config).read_text(), re.MULTILINE)
    lab = Lab(
        # The file may have another address by now.
        {
            member: f"ssh -F {config} -o HostName={urlsplit(url).hostname} {member}"
            for member, url in members.items()
            if member in hosts
        },
        news["members"],
        members,
        int(news["client_port"]),
        news["token"],
        identity="",
    )
    return lab.survey(seconds=LOOK_SECONDS)


def restores(olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
    """Whether the update restores a snapshot."""
    wanted = news.get("restore_from")
    return bool(wanted) and wanted != olds.get("restore_from")


def has_begun(members: Mapping[str, str], reports: Mapping[str, Report]) -> bool:
    """Whether a cluster of these members has started. If no member can be asked, it is assumed to have.

    A member's write-ahead log begins with the list of members, which is valid from then on.
    """
    reached = any(reports[member].reached for member in members if member in reports)
    return bool(has_data(reports)) or not reached


class _MembershipProvider(StoringProvider):
    compared = ("token", "members", "hosts", "restore_from")

    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        # A host that was a member of another cluster has the ID of that one.
        return dynamic.CreateResult(secrets.token_hex(8), dict(props))

    def check(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.CheckResult:
        if "members" not in olds or not is_known(news):
            return dynamic.CheckResult({**news, "serial": olds.get("serial", 1)}, [])
        changed = olds["members"] != news["members"]
        checked = {**news, "serial": int(olds.get("serial", 0)) + changed}
        wrong = [*refusals(olds, news), *([] if changed else quorum_refusals(olds, news))]
        sentences = [] if changed else effects(olds, news)
        if not (changed or wrong or sentences):
            return dynamic.CheckResult(checked, [])
        reports = survey(olds, news)
        if not has_begun(olds["members"], reports):
            return dynamic.CheckResult(checked, [])
        asked = bool(reports) and not any(report.state.healthy for report in reports.values())
        if changed and restores(olds, news) and asked and not replaced(olds, news):
            tell([f"etcd: the restored cluster has the members {', '.join(news['members'])}"])
            return dynamic.CheckResult(checked, [])
        if changed and not wrong:
            try:
                sentences = numbered(change(olds, news, reports))
            except BlockedError as blocked:
                wrong = [_refused(blocked)]
        if not (changed or wrong):
            wrong = health_refusals(olds, news, reports)
        tell([] if wrong else sentences)
        return dynamic.CheckResult(checked, wrong)


class Membership(dynamic.Resource, module="calico-lab", name="Membership"):
    """The members and the token of the cluster. Its ID identifies the cluster."""

    serial: Output[int]
    """Counts the changes of the members."""

    def __init__(
        self,
        name: str,
        config: "EtcdConfig",
        members: Mapping[str, str],
        hosts: Mapping[str, str],
        opts: ResourceOptions | None = None,
    ) -> None:
        """Store the members.

        Args:
            name: The resource's name.
            config: The cluster's section.
            members: Peer URL by member.
            hosts: `Host.replacement_digest` of each host container of the lab, member or not.
            opts: More resource options, usually the parent.
        """
        props = {
            "token": config.token,
            "members": dict(members),
            "hosts": dict(hosts),
            "client_port": config.client_port,
            "restore_from": config.restore_from,
            "ssh_config": f"{access_folder()}/config",
            "serial": None,
        }
        super().__init__(_MembershipProvider(), name, props, opts)
