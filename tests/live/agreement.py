"""Whether Docker, Calico's datastore and the kernel say the same of the network's addresses, on all hosts.

It compares what `calicoctl ipam check` compares, and more. That command itself is of no use here: with etcd
as the datastore it wants a Kubernetes API all the same, to ask it for Services, and refuses to go on without
(calicoctl/calicoctl/commands/ipam/check.go of v3.31).

etcd keeps an hour of history, so that what has to be true at all times need not be sampled: `History` goes
through every revision.
"""

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.hosts import remote
from workspace.outputs import Outputs

FACTS = Path(__file__).with_name("agreement.sh").read_text()
ENDPOINTS = "/calico/resources/v3/projectcalico.org/workloadendpoints/"
BLOCKS = "/calico/ipam/v2/assignment/ipv4/block/"
HANDLES = "/calico/ipam/v2/handle/"
DRIVER_HANDLE = "docker-"
"""How the handles of the driver's own allocations start (docker-driver/ipam)."""
_ETCDCTL = "set -a; . /etc/calico-lab/etcd/etcdctl.env; "


@dataclass(frozen=True)
class Endpoint:
    """A WorkloadEndpoint."""

    node: str
    addresses: frozenset[str]
    interface: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Allocation:
    """An address that IPAM holds as in use."""

    node: str
    handle: str


@dataclass(frozen=True)
class Datastore:
    """What Calico's datastore has at one revision."""

    revision: int
    endpoints: Mapping[str, Endpoint]
    """By the ID that Docker gave."""
    allocations: Mapping[str, Allocation]
    """By address; the driver's own."""
    handles: frozenset[str]
    """The driver's own."""


@dataclass(frozen=True)
class HostFacts:
    """What a host has."""

    endpoints: Mapping[str, str]
    """Docker's endpoints on the network: address by ID."""
    containers: Mapping[str, str]
    """State by name."""
    links: frozenset[str]
    routes: Mapping[str, str]
    """Interface by address."""


def read_endpoint(text: str) -> tuple[str, Endpoint]:
    """Read a WorkloadEndpoint as etcd has it."""
    resource = json.loads(text)
    spec = resource["spec"]
    addresses = frozenset(network.removesuffix("/32") for network in spec["ipNetworks"])
    labels = resource["metadata"].get("labels", {})
    return spec["endpoint"], Endpoint(spec["node"], addresses, spec["interfaceName"], labels)


def read_block(text: str) -> Iterator[tuple[str, Allocation]]:
    """Read the driver's allocations in a block of IPAM (libcalico-go/lib/backend/model/block.go)."""
    block = json.loads(text)
    network, _, _ = block["cidr"].partition("/")
    first = int.from_bytes(bytes(map(int, network.split("."))))
    for ordinal, index in enumerate(block["allocations"]):
        if index is None:
            continue
        attribute = block["attributes"][index]
        handle = attribute.get("handle_id") or ""
        if handle.startswith(DRIVER_HANDLE):
            address = ".".join(map(str, (first + ordinal).to_bytes(4)))
            yield address, Allocation((attribute.get("secondary") or {}).get("node", ""), handle)


def read_datastore(keys: Mapping[str, str], revision: int) -> Datastore:
    """Read all of Calico's keys."""
    return Datastore(
        revision,
        dict(read_endpoint(text) for key, text in keys.items() if key.startswith(ENDPOINTS)),
        dict(one for key, text in keys.items() if key.startswith(BLOCKS) for one in read_block(text)),
        frozenset(
            name
            for key in keys
            if key.startswith(HANDLES) and (name := key.removeprefix(HANDLES)).startswith(DRIVER_HANDLE)
        ),
    )


def read_host(text: str) -> HostFacts:
    """Read what `agreement.sh` prints."""
    lines = [line.split(" ") for line in text.splitlines()]
    return HostFacts(
        {words[1]: words[2].removesuffix("/32") for words in lines if words[0] == "endpoint"},
        {words[1]: words[2] for words in lines if words[0] == "container"},
        frozenset(words[1] for words in lines if words[0] == "link"),
        {words[1]: words[2] for words in lines if words[0] == "route"},
    )


def disagreements(datastore: Datastore, hosts: Mapping[str, HostFacts]) -> list[str]:
    """Say in sentences what does not fit together."""
    return sorted(
        {
            *_on_hosts(datastore, hosts),
            *_between_hosts(hosts),
            *_in_ipam(datastore),
        }
    )


def _on_hosts(datastore: Datastore, hosts: Mapping[str, HostFacts]) -> Iterator[str]:
    for endpoint, stored in datastore.endpoints.items():
        if endpoint not in hosts[stored.node].endpoints:
            yield f"{stored.node}: WorkloadEndpoint {endpoint} {set(stored.addresses)} is none of Docker's"
    for host, facts in hosts.items():
        for endpoint, address in facts.endpoints.items():
            known = datastore.endpoints.get(endpoint)
            if known is None:
                yield f"{host}: Docker's endpoint {endpoint} ({address}) has no WorkloadEndpoint"
            elif known.addresses != {address} or known.node != host:
                yield f"{host}: Docker's endpoint {endpoint} has {address}, its WorkloadEndpoint {known}"
            elif facts.routes.get(address) != known.interface:
                route = facts.routes.get(address)
                yield f"{host}: the route to {address} is by {route}, not {known.interface}"
        interfaces = {f"cali{endpoint[:11]}" for endpoint in facts.endpoints}
        for link in facts.links ^ interfaces:
            yield f"{host}: interface {link} is {'stray' if link in facts.links else 'missing'}"
        for address in facts.routes.keys() - facts.endpoints.values():
            yield f"{host}: a stray route to {address}"


def _between_hosts(hosts: Mapping[str, HostFacts]) -> Iterator[str]:
    holders = Counter(address for facts in hosts.values() for address in facts.endpoints.values())
    for address, count in holders.items():
        if count > 1:
            yield f"{count} of Docker's endpoints have {address}"


def _in_ipam(datastore: Datastore) -> Iterator[str]:
    used = {address: endpoint for endpoint in datastore.endpoints.values() for address in endpoint.addresses}
    for address in datastore.allocations.keys() - used.keys():
        yield f"{address} is allocated ({datastore.allocations[address]}) and not in use"
    for address, endpoint in used.items():
        allocation = datastore.allocations.get(address)
        if allocation is None or allocation.node != endpoint.node:
            yield f"{address} is in use on {endpoint.node}, and IPAM says {allocation}"
    held = {allocation.handle for allocation in datastore.allocations.values()}
    for handle in datastore.handles ^ held:
        yield f"handle {handle} {'holds nothing' if handle in datastore.handles else 'is not there'}"


@dataclass
class History:
    """Goes through the datastore's revisions and notes each in which an address is not as it has to be."""

    endpoints: dict[str, tuple[str, Endpoint]] = field(default_factory=dict)
    """By key of etcd."""
    blocks: dict[str, dict[str, Allocation]] = field(default_factory=dict)
    """By key of etcd."""
    stored: int = 0
    """How many endpoints were made."""
    faults: list[str] = field(default_factory=list)

    def begin(self, keys: Mapping[str, str]) -> None:
        """Take what there is at the first revision."""
        for key, text in keys.items():
            self._put(key, text)

    def go_on(self, revision: int, key: str, text: str | None) -> None:
        """Take the next change; None is a deletion."""
        if text is None:
            self.endpoints.pop(key, None)
            self.blocks.pop(key, None)
        else:
            self.stored += key.startswith(ENDPOINTS) and key not in self.endpoints
            self._put(key, text)
        if key.startswith((ENDPOINTS, BLOCKS)):
            self.faults.extend(f"revision {revision}: {fault}" for fault in self._look())

    def _put(self, key: str, text: str) -> None:
        if key.startswith(ENDPOINTS):
            self.endpoints[key] = read_endpoint(text)
        elif key.startswith(BLOCKS):
            self.blocks[key] = dict(read_block(text))

    def _look(self) -> Iterator[str]:
        allocated = {address: one for block in self.blocks.values() for address, one in block.items()}
        holders: dict[str, str] = {}
        for name, endpoint in self.endpoints.values():
            for address in endpoint.addresses:
                if address in holders:
                    yield f"{address} is of endpoints {holders[address]} and {name}"
                holders[address] = name
                if (one := allocated.get(address)) is None or one.node != endpoint.node:
                    yield f"{address} is of endpoint {name} on {endpoint.node}, and IPAM says {one}"


def _plain(text: str) -> str:
    return base64.b64decode(text).decode()


def keys_of(outputs: Outputs) -> tuple[int, dict[str, str]]:
    """Read all of Calico's keys at one revision of etcd, and which."""
    answer = remote.run(
        next(iter(outputs.ssh.values())), _ETCDCTL + "etcdctl get --prefix /calico/ -w json", seconds=20
    )
    assert answer.status == 0, answer.error
    told = json.loads(answer.text)
    pairs = {_plain(pair["key"]): _plain(pair.get("value", "")) for pair in told["kvs"]}
    return int(told["header"]["revision"]), pairs


def changes_since(outputs: Outputs, revision: int) -> Iterator[tuple[int, str, str | None]]:
    """Read what has changed in Calico's keys after a revision, in order: revision, key, value or None."""
    script = f"{_ETCDCTL} timeout 10 etcdctl watch --prefix /calico/ --rev {revision + 1} -w json || true"
    answer = remote.run(next(iter(outputs.ssh.values())), script, seconds=40)
    assert answer.status == 0, answer.error
    # The last line may be cut off.
    for line in answer.text[: answer.text.rfind("\n") + 1].splitlines():
        told: dict[str, Any] = json.loads(line)
        assert not told.get("CompactRevision"), f"etcd has no history from revision {revision} on"
        for event in told["Events"]:
            pair = event["kv"]
            deleted = event.get("type") == 1
            yield int(pair["mod_revision"]), _plain(pair["key"]), None if deleted else _plain(pair["value"])


def look(outputs: Outputs) -> tuple[Datastore, dict[str, HostFacts]]:
    """Read the datastore and ask all hosts; one that does not answer is a failure."""
    revision, keys = keys_of(outputs)
    ssh = {host: outputs.ssh[host] for host in outputs.hosts}
    answers = remote.ask(ssh, FACTS, {host: {"NETWORK": outputs.network} for host in ssh})
    for host, answer in answers.items():
        assert answer.status == 0, f"{host}: {answer.error}"
    return read_datastore(keys, revision), {host: read_host(answer.text) for host, answer in answers.items()}


def check(outputs: Outputs) -> None:
    """Fail when Docker, the datastore and the kernel do not agree."""
    found = disagreements(*look(outputs))
    assert not found, "\n".join(found)
