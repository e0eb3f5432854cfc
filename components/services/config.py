"""The sections of the services in the config."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from components.shared.section import Address, HostName, Number, Section, UnprivilegedPort, Whole

MOST_MEMORY = 64 << 20
"""MiB that Linux can have on x86-64: 64 TiB (Documentation/arch/x86/x86_64/mm.rst)."""
MOST_CPUS = 8192
"""Processors that Linux can have on x86-64 (NR_CPUS_RANGE_END in arch/x86/Kconfig)."""


def _hundredths(value: float) -> float:
    # Docker takes nine digits after the point at most, and 0.1 + 0.2 has seventeen.
    return round(value, 2)


Cpus = Annotated[Number, AfterValidator(_hundredths)]
"""A number of processors, to the hundredth."""


def memory_field(default: int, at_least: int, user: str) -> Any:  # noqa: ANN401 - as pydantic's Field
    """The field of a limit of memory, in MiB."""
    return Field(
        default,
        ge=at_least,
        le=MOST_MEMORY,
        description=f"The memory that {user} may use, in MiB; no more than the host has.",
    )


def cpus_field(default: float, user: str) -> Any:  # noqa: ANN401 - as pydantic's Field
    """The field of a limit of processors."""
    return Field(
        default,
        ge=0.1,
        le=MOST_CPUS,
        description=f"The processors that {user} may use, no more than the host has; 0.5 is half of one.",
    )


class ServiceConfig(Section):
    """What the sections of all services have in common."""

    host: HostName = Field(description="The host that runs it.")
    memory: Whole = memory_field(256, 64, "it")
    cpus: Cpus = cpus_field(0.5, "it")


class ProxyConfig(ServiceConfig):
    """The `proxy` section of the config."""

    host: HostName = Field(
        "a2", description="The host, one on the network, that runs it, and at whose address it listens."
    )
    port: UnprivilegedPort = Field(8888, description="Where it listens.")
    api_port: UnprivilegedPort = Field(
        8001, description="Where its API listens, on the loopback interface of the host."
    )


class SshBoxConfig(ServiceConfig):
    """The `sshBox` section of the config."""

    host: HostName = Field("a0", description="The host that runs it; what is saved does not move along.")
    address: Address | None = Field(
        None, description="Its fixed address on the container network; without it, any that is free."
    )
