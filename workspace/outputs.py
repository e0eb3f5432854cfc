"""Reads the outputs of the lab's stack from Pulumi, without secrets."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROJECT = Path(__file__).resolve().parents[1]
"""The project's folder. Paths in the outputs are relative to it."""


class StackError(Exception):
    """A stack cannot be read; the message says why and what to do next."""


@dataclass(frozen=True)
class Outputs:
    """The stack's outputs."""

    hosts: Mapping[str, str]
    """Address by host."""
    ssh: Mapping[str, str]
    """ssh command by host, the visitor included if there is one."""
    etcd_endpoints: tuple[str, ...]
    """Client URL of each etcd member."""
    network: str
    """Name of the container network."""
    cidr: str
    """Addresses of the container network."""
    dataplane: str
    """Calico's dataplane: `iptables` or `ebpf`."""
    route_reflectors: tuple[str, ...]
    """Hosts that are route reflectors; none with a full mesh."""
    notebook_url: str
    """URL of the notebook through the proxy, without its token."""
    proxy_url: str
    """URL of the proxy."""
    proxy_urls: tuple[str, ...]
    """URL of each proxy, that one first."""
    proxy_authority: str
    """Certificates, PEM, that vouch for the proxy; empty with HTTP."""
    firewall: Mapping[str, tuple[str, ...]]
    """Active policies by host."""
    notebooks: Mapping[str, Mapping[str, Any]]
    """`host`, `container`, `path` on the proxy, and `enabled` of each notebook, by name."""

    @property
    def bpf(self) -> bool:
        """Whether BPF programs forward packets, and not iptables rules."""
        return self.dataplane == "ebpf"

    @property
    def notebook_api(self) -> str:
        """URL of the notebook's REST API, through the proxy."""
        return f"{self.proxy_url.rstrip('/')}/api"

    @property
    def stopped(self) -> set[str]:
        """The containers of the notebooks that are off."""
        return {one["container"] for one in self.notebooks.values() if not one["enabled"]}

    def etcd_endpoint(self, host: str) -> str | None:
        """Return the client URL of a host's etcd member; None if it has none."""
        return next((url for url in self.etcd_endpoints if urlsplit(url).hostname == self.hosts[host]), None)


def parse(document: Mapping[str, Any], stack: str) -> Outputs:
    """Parse what `pulumi stack output --json` prints.

    Raises:
        StackError: An output is missing, for example because `up` has not finished.
    """
    try:
        return Outputs(
            hosts=document["hosts"],
            ssh=document["ssh"],
            etcd_endpoints=tuple(document["etcdEndpoints"]),
            network=document["network"]["name"],
            cidr=document["network"]["cidr"],
            dataplane=document["network"]["dataplane"],
            route_reflectors=tuple(document["network"]["routeReflectors"]),
            notebook_url=document["notebookUrl"],
            proxy_url=document["proxyUrl"],
            proxy_urls=tuple(document["proxyUrls"]),
            proxy_authority=document["proxyAuthority"],
            firewall={host: tuple(policies) for host, policies in document["firewall"].items()},
            notebooks=document["notebooks"],
        )
    except KeyError as error:
        raise StackError(
            f"stack {stack} has no output {error}: the lab is not up, or not whole; "
            f"next: pulumi up --stack {stack}"
        ) from None


def read(stack: str) -> Outputs:
    """Read the outputs of a stack.

    Raises:
        StackError: There is no such stack, or Pulumi cannot be run.
    """
    return parse(_pulumi(stack, "outputs", "stack", "output", "--json"), stack)


def notebook_tokens(stack: str) -> dict[str, str]:
    """Read the token of each notebook, by name. These are secrets.

    Raises:
        StackError: There is no such stack, or Pulumi cannot be run.
    """
    outputs = _pulumi(stack, "outputs", "stack", "output", "--json", "--show-secrets")
    tokens: dict[str, str] = outputs.get("notebookTokens", {})
    return tokens


def resources(stack: str, kind: str) -> list[Mapping[str, Any]]:
    """Read the outputs of a stack's resources of one type from its state.

    Args:
        stack: The stack.
        kind: The last part of the type.

    Raises:
        StackError: There is no such stack, or Pulumi cannot be run.
    """
    state = _pulumi(stack, "state", "stack", "export")["deployment"].get("resources", [])
    return [
        resource["outputs"]
        for resource in state
        # A replaced resource that is still to be deleted is not part of the stack.
        if resource["type"].rpartition(":")[2] == kind and not resource.get("delete")
    ]


def _pulumi(stack: str, what: str, *arguments: str) -> Any:  # noqa: ANN401 - the JSON that it prints
    command = ["pulumi", *arguments, "--non-interactive", "--stack", stack]
    try:
        answer = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        raise StackError("pulumi is not on PATH; next: . ./env.sh in the project's folder") from None
    except subprocess.TimeoutExpired:
        raise StackError(
            f"pulumi gave no {what} of stack {stack} within 60 s; next: pulumi stack --stack {stack}"
        ) from None
    if answer.returncode != 0:
        raise StackError(
            f"stack {stack} cannot be read: {answer.stderr.strip().removeprefix('error: ')}; "
            "next: make up, or . ./env.sh where it is up already"
        )
    return json.loads(answer.stdout)
