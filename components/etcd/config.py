"""The `etcd` section of the config."""

from pydantic import Field, field_validator

from components.shared.section import HostName, Section, UnprivilegedPort


class EtcdConfig(Section):
    """The `etcd` section of the config."""

    members: tuple[HostName, ...] = Field(
        ("a0", "a1", "a2"),
        min_length=1,
        max_length=7,
        description="The hosts that are members; an odd number of them. Another list changes the running "
        "cluster one member at a time (docs/etcd.md).",
    )
    token: str = Field(
        "etcd-cluster-1",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Keeps clusters apart that are bootstrapped side by side; no secret.",
    )
    peer_port: UnprivilegedPort = Field(2380, description="Where members talk to each other.")
    client_port: UnprivilegedPort = Field(2379, description="Where clients talk to a member.")

    @field_validator("members")
    @classmethod
    def _members_differ(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        if twice := sorted({member for member in members if members.count(member) > 1}):
            raise ValueError(f"{', '.join(twice)} is named more than once; name each member once")
        return members

    def warnings(self) -> list[str]:
        """What is allowed and yet better done otherwise."""
        count = len(self.members)
        if count % 2:
            return []
        return [
            f"etcd.members: a quorum of {count} members survives the loss of {(count - 1) // 2}, "
            f"as one of {count - 1} does; take an odd number"
        ]
