"""The outputs of the lab's stack: where the hosts are and how they are reached.

They are all that the command knows of the lab before it asks the hosts. Secrets stay hidden: nothing here
asks Pulumi to show one.
"""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROJECT = Path(__file__).resolve().parents[1]
"""The project's folder, from which the paths in the outputs are meant."""


class StackError(Exception):
    """There is no lab to ask; the message says what to do."""


@dataclass(frozen=True)
class Outputs:
    """What the stack says of the lab."""

    hosts: Mapping[str, str]
    """Address by host."""
    ssh: Mapping[str, str]
    """A ready ssh command by machine; the visitor is among them where there is one."""
    etcd_endpoints: tuple[str, ...]
    """Client URL of each member."""
    network: str
    """Name of the containers' network."""
    cidr: str
    """Its addresses."""
    dataplane: str
    """What Calico decides on packets with: `iptables` or `ebpf`."""
    route_reflectors: tuple[str, ...]
    """The hosts with which alone the others have BGP sessions; none where each has one with every other."""
    notebook_url: str
    """The notebook through the proxy, without its token."""
    proxy_url: str
    """The proxy."""
    firewall: Mapping[str, tuple[str, ...]]
    """Active policies by host."""

    @property
    def by_programs(self) -> bool:
        """Whether programs in the kernel hand packets on, and no rules of netfilter."""
        return self.dataplane == "ebpf"

    @property
    def notebook_api(self) -> str:
        """The notebook's REST API, through the proxy."""
        return f"{self.proxy_url.rstrip('/')}/api"

    def etcd_endpoint(self, host: str) -> str | None:
        """The client URL of a host's member, if it is one."""
        return next((url for url in self.etcd_endpoints if urlsplit(url).hostname == self.hosts[host]), None)


def parse(document: Mapping[str, Any], stack: str) -> Outputs:
    """Read the outputs as `pulumi stack output --json` prints them.

    Raises:
        StackError: An output is missing, as in a stack whose `up` has not finished.
    """
    try:
        return Outputs(
            hosts=document["hosts"],
            ssh=document["ssh"],
            etcd_endpoints=tuple(document["etcdEndpoints"]),
            network=document["network"]["name"],
            cidr=document["network"]["cidr"],
            # A lab of an earlier version has neither.
            dataplane=document["network"].get("dataplane", "iptables"),
            route_reflectors=tuple(document["network"].get("routeReflectors", ())),
            notebook_url=document["notebookUrl"],
            proxy_url=document["proxyUrl"],
            firewall={host: tuple(policies) for host, policies in document["firewall"].items()},
        )
    except KeyError as error:
        raise StackError(
            f"stack {stack} has no output {error}: the lab is not up, or not whole; "
            f"next: pulumi up --stack {stack}"
        ) from None


def read(stack: str) -> Outputs:
    """Read the outputs of a stack.

    Raises:
        StackError: There is no such stack, or no Pulumi to ask.
    """
    return parse(_pulumi(stack, "outputs", "stack", "output", "--json"), stack)


def resources(stack: str, kind: str) -> list[Mapping[str, Any]]:
    """Read the outputs of a stack's resources of one kind, as the last update left them.

    Args:
        stack: The stack.
        kind: The last part of the resources' type.

    Raises:
        StackError: There is no such stack, or no Pulumi to ask.
    """
    state = _pulumi(stack, "state", "stack", "export")["deployment"].get("resources", [])
    return [
        resource["outputs"]
        for resource in state
        # What a replacement has left to be deleted is no part of the stack any more.
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
