"""The `backup` section of the config."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from components.shared.section import HostName, Section, UnprivilegedPort, Whole, problem_at


class KeepConfig(Section):
    """How many snapshots of a notebook stay: the last one of each of these periods (restic-forget(1))."""

    last: Whole = Field(3, ge=0, le=10_000, description="The latest ones, whenever they were taken.")
    hourly: Whole = Field(24, ge=0, le=10_000, description="Hours with a snapshot.")
    daily: Whole = Field(14, ge=0, le=10_000, description="Days with a snapshot.")
    weekly: Whole = Field(8, ge=0, le=10_000, description="Weeks with a snapshot.")
    monthly: Whole = Field(0, ge=0, le=10_000, description="Months with a snapshot.")

    @model_validator(mode="after")
    def _keeps_any(self) -> Self:
        if not any(self.model_dump().values()):
            raise problem_at(
                "last", 0, "keeps no snapshot; must be at least 1, or the count of another period"
            )
        return self


class BackupConfig(Section):
    """The `backup` section of the config."""

    hosts: tuple[HostName, ...] = Field(
        description="The hosts that keep backups, two or more, with Debian 13 or a restic-rest-server of "
        "their own. A host backs up to the first of them that is not itself.",
    )
    every_minutes: Whole = Field(
        60, ge=5, le=10_080, description="The time from one backup of a host to the next, in minutes."
    )
    keep: KeepConfig = Field(
        default_factory=lambda: KeepConfig.model_validate({}),
        description="The snapshots of a notebook that stay; the others are removed once a day.",
    )
    port: UnprivilegedPort = Field(8000, description="Where a host that keeps backups listens.")
    keep_on_destroy: bool = Field(
        True,
        description="Whether the backups stay on their hosts when the section is removed or the lab is "
        "destroyed. Those on host containers go with the containers.",
    )

    @field_validator("hosts")
    @classmethod
    def _every_host_has_another(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if twice := sorted({host for host in hosts if hosts.count(host) > 1}):
            raise ValueError(f"{', '.join(twice)} is named more than once; name each host once")
        if len(hosts) < 2:
            raise ValueError("must name two hosts or more, because no host keeps its own backups")
        return hosts
