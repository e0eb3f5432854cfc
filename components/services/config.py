"""The sections of the services in the config."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from components.shared.section import (
    Address,
    ExpandedPath,
    HostName,
    Number,
    Section,
    UnprivilegedPort,
    Whole,
    problem_at,
)

MOST_MEMORY = 64 << 20
"""MiB that Linux can have on x86-64: 64 TiB (Documentation/arch/x86/x86_64/mm.rst)."""
MOST_CPUS = 8192
"""Processors that Linux can have on x86-64 (NR_CPUS_RANGE_END in arch/x86/Kconfig)."""


def _hundredths(value: float) -> float:
    # Docker takes nine digits after the point at most, and 0.1 + 0.2 has seventeen.
    return round(value, 2)


Cpus = Annotated[Number, AfterValidator(_hundredths)]
"""A number of processors, to the hundredth."""


def _dns_name(value: str) -> str:
    value = value.lower()
    label = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
    # RFC 1123, section 2.1; an address is none, because the last label has a letter.
    if len(value) > 253 or not re.fullmatch(rf"({label}\.)*(?=[0-9-]*[a-z]){label}", value):
        raise ValueError("must be a DNS name such as lab.example.org")
    return value


DnsName = Annotated[str, AfterValidator(_dns_name)]


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
    second_host: HostName | None = Field(
        None,
        description="Another host, which runs a proxy of the same notebooks at its own address. Visitors use "
        "it when the first does not answer.",
    )
    port: UnprivilegedPort = Field(8888, description="Where it listens.")
    api_port: UnprivilegedPort = Field(
        8001, description="Where its API listens, on the loopback interface of the host."
    )
    https: Literal["none", "lab", "own"] = Field(
        "none",
        description="`none`: HTTP. `lab`: HTTPS with a certificate of the lab's own CA, which visitors have "
        "to trust once; `pulumi stack output proxyAuthority` prints it. `own`: HTTPS with `certificate` and "
        "`key`, and HSTS.",
    )
    certificate: ExpandedPath | None = Field(
        None,
        description="With `https: own`: path of a PEM file with the certificate, then the authorities "
        "between it and the root.",
    )
    key: ExpandedPath | None = Field(
        None,
        description="With `https: own`: path of a PEM file with the certificate's private key, without "
        "passphrase.",
    )
    name: DnsName | None = Field(
        None,
        description="The DNS name by which visitors reach it, for URLs and the certificate. Left out: the "
        "host's address.",
    )
    http_port: UnprivilegedPort = Field(
        8080, description="With HTTPS: where HTTP requests are redirected to `port`."
    )
    start_page: bool | None = Field(
        None,
        description="Whether `/` lists the notebooks. Left out: if there are others than the one at `/`. "
        "Without it `/` is that notebook's.",
    )
    metrics_port: UnprivilegedPort | None = Field(
        None,
        description="Where `/metrics` is served for Prometheus, on the loopback interface of the host. Left "
        "out: nowhere.",
    )

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that run a proxy, the first one first."""
        return (self.host, self.second_host) if self.second_host else (self.host,)

    @property
    def scheme(self) -> str:
        """The scheme of its URLs."""
        return "http" if self.https == "none" else "https"

    @model_validator(mode="after")
    def _hosts_differ(self) -> Self:
        if self.second_host == self.host:
            raise problem_at("secondHost", self.host, "is proxy.host too; must be another host")
        return self

    @model_validator(mode="after")
    def _certificate_is_usable(self) -> Self:
        if self.https != "own":
            return self
        # Only here, because `cryptography` takes a while to import.
        from components.services.certificate import check_certificate, check_key  # noqa: PLC0415

        try:
            check_certificate(self.certificate, self.name)
        except ValueError as error:
            raise problem_at("certificate", _path(self.certificate), str(error)) from None
        try:
            check_key(self.key, self.certificate or Path())
        except ValueError as error:
            raise problem_at("key", _path(self.key), str(error)) from None
        return self


def _path(path: Path | None) -> str:
    return str(path or "left out")


class SshBoxConfig(ServiceConfig):
    """An SSH box: the `sshBox` section of the config, and each of the `sshBoxes`."""

    host: HostName = Field("a0", description="The host that runs it; what is saved does not move along.")
    address: Address | None = Field(
        None, description="Its fixed address on the container network; without it, any that is free."
    )
