"""The sections of the services in the config."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from components.shared.section import Address, HostName, Number, Section, UnprivilegedPort, Whole

NOTEBOOK_PORT = 8888
"""The TCP port of the notebook on the container network."""
MOST_MEMORY = 64 << 20
"""MiB that Linux can have on x86-64: 64 TiB (Documentation/arch/x86/x86_64/mm.rst)."""
MOST_CPUS = 8192
"""Processors that Linux can have on x86-64 (NR_CPUS_RANGE_END in arch/x86/Kconfig)."""


def _hundredths(value: float) -> float:
    # Docker takes nine digits after the point at most, and 0.1 + 0.2 has seventeen.
    return round(value, 2)


Cpus = Annotated[Number, AfterValidator(_hundredths)]
"""A number of processors, to the hundredth."""


def _memory(default: int, at_least: int, user: str) -> Any:  # noqa: ANN401 - as pydantic's Field
    return Field(
        default,
        ge=at_least,
        le=MOST_MEMORY,
        description=f"The memory that {user} may use, in MiB; no more than the host has.",
    )


def _cpus(default: float, user: str) -> Any:  # noqa: ANN401 - as pydantic's Field
    return Field(
        default,
        ge=0.1,
        le=MOST_CPUS,
        description=f"The processors that {user} may use, no more than the host has; 0.5 is half of one.",
    )


class ServiceConfig(Section):
    """What the sections of all services have in common."""

    host: HostName = Field(description="The host that runs it.")
    memory: Whole = _memory(256, 64, "it")
    cpus: Cpus = _cpus(0.5, "it")


class NotebookConfig(ServiceConfig):
    """The `notebook` section of the config."""

    host: HostName = Field("a1", description="The host that runs it; what is saved does not move along.")
    address: Address = Field(description="Its fixed address on the container network.")
    memory: Whole = _memory(1024, 256, "it and its kernels")
    cpus: Cpus = _cpus(1.0, "it and its kernels")


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
