"""The list of members that a cluster was bootstrapped with, kept so that it is not changed by accident.

etcd reads the list at a member's first start only. A changed list would leave the old members as they are
and give a new one a cluster of its own, which never gets a quorum. So a change is refused, and the preview
says so already.
"""

from collections.abc import Mapping
from typing import Any

from pulumi import ResourceOptions, dynamic


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


class _MembershipProvider(dynamic.ResourceProvider):
    def check(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dynamic.CheckResult:
        return dynamic.CheckResult(dict(news), refusals(olds, news) if "members" in olds else [])

    def create(self, props: Mapping[str, Any]) -> dynamic.CreateResult:
        return dynamic.CreateResult(props["token"], dict(props))


class Membership(dynamic.Resource, module="calico-lab", name="Membership"):
    """The members and the token that the cluster was bootstrapped with."""

    def __init__(
        self, name: str, token: str, members: Mapping[str, str], opts: ResourceOptions | None = None
    ) -> None:
        """Remember the bootstrap.

        Args:
            name: The resource's name.
            token: The cluster's token.
            members: Peer URL by member.
            opts: More resource options, usually the parent.
        """
        super().__init__(_MembershipProvider(), name, {"token": token, "members": dict(members)}, opts)
