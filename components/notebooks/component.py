"""Notebooks: JupyterLab in a container for each member of a class, on the lab's network.

Owes: what is saved in a work folder outlives its container and moves with it; a token is nowhere in the clear
but in a file that its notebook's user alone can read; a member more or less changes no other's notebook.

`work.py` keeps what outlasts a container, `container.py` runs it, `placement.py` chooses its host, `step.py`
runs their scripts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pulumi
from pulumi import ComponentResource, Input, Output, Resource, ResourceOptions

from components.backup.component import Backup
from components.calico.isolation import STUDENT
from components.hosts.docker_object import DockerObject
from components.hosts.host import Host, after_hosts
from components.notebooks.config import NOTEBOOK_PORT, ORIGINAL, Notebook, NotebooksConfig
from components.notebooks.container import NotebookContainer
from components.notebooks.placement import Placement
from components.notebooks.work import NotebookWork
from components.services.image import service_image
from components.services.packages import packages_lock
from components.services.proxy import Route

NOWHERE = "192.0.2.1"
"""An address that no host has (RFC 5737), for a route that has to name one."""


class Notebooks(ComponentResource):
    """The notebooks of the lab, the original's among them."""

    routes: list[Route]
    """What the proxy forwards to."""
    tokens: dict[str, Output[str]]
    """The token of each notebook (secret)."""
    containers: dict[str, NotebookContainer]
    """Known to be running when their IDs are known."""
    output: Output[dict[str, dict[str, Any]]]
    """`host`, `container`, `path` on the proxy, and `enabled` of each notebook, once it answers."""

    def __init__(
        self,
        name: str,
        config: NotebooksConfig,
        notebooks: Mapping[str, Notebook],
        hosts: Mapping[str, Host],
        *,
        networks: Mapping[str, DockerObject],
        lab: Mapping[str, Any],
        backup: Backup | None = None,
        after: Sequence[Resource] = (),
        opts: ResourceOptions | None = None,
    ) -> None:
        """Run the notebooks.

        Args:
            name: The component's name.
            config: The section of the class.
            notebooks: The notebooks by name, from both sections.
            hosts: The hosts of the lab that are on the network.
            networks: The Docker network of each of these hosts.
            lab: What the first notebook shows of the lab.
            backup: The backups of all hosts; None without.
            after: What is done before a notebook starts.
            opts: More resource options.
        """
        super().__init__("calico-lab:index:Notebooks", name, None, opts)
        self._child = ResourceOptions(parent=self)
        self._config = config
        candidates = [hosts[host] for host in config.hosts or hosts if not hosts[host].lost]
        self._placed = self._placement(name, notebooks, candidates)
        named = {notebook.host for notebook in notebooks.values() if notebook.host}
        self._hosts = {
            host: hosts[host]
            for host in hosts
            if host in named or (self._placed and hosts[host] in candidates)
        }
        lock = packages_lock(config.packages, Path()) if config.packages else None
        self._images = {
            host: service_image("notebook", self._hosts[host], self._child, packages=lock)
            for host in self._hosts
        }
        self._lost = sorted(host.location for host in hosts.values() if host.lost)
        self._networks = networks
        self._lab = lab
        self._backup = backup
        self._after = after
        self.routes, self.tokens, self.containers = [], {}, {}
        output: dict[str, Input[dict[str, Any]]] = {}
        for notebook in notebooks.values():
            output[notebook.name] = self._run(notebook)
        self.output = Output.all(**output)
        self.register_outputs({"notebooks": self.output})

    def _placement(
        self, name: str, notebooks: Mapping[str, Notebook], candidates: list[Host]
    ) -> Output[dict[str, str]] | None:
        wanted = {notebook.name: notebook.memory for notebook in notebooks.values()}
        named = {notebook.name: notebook.host for notebook in notebooks.values() if notebook.host}
        if len(named) == len(wanted):
            return None
        return Placement(f"{name}-placement", wanted, named, candidates, self._child).hosts

    def _of(self, notebook: Notebook, values: Mapping[str, Input[str]]) -> Input[str]:
        """The value of the notebook's host. Those of other hosts do not count, known or not."""
        if notebook.host:
            return values[notebook.host]
        assert self._placed is not None  # noqa: S101 - a notebook without a host has a placement
        return self._placed.apply(lambda placed: values[placed[notebook.name]])

    def _run(self, notebook: Notebook) -> Output[dict[str, Any]]:
        hosts = [self._hosts[notebook.host]] if notebook.host else list(self._hosts.values())
        host = self._of(notebook, {host.name: host.name for host in hosts})
        common: dict[str, Input[Any]] = {
            "host": host,
            # Where the volume is: it changes when the notebook moves.
            "location": self._of(notebook, {host.name: host.location for host in hosts}),
            "ssh": self._of(notebook, {host.name: host.ssh for host in hosts}),
            "container": notebook.container,
            "volume": notebook.volume,
            "notebook": notebook.name,
            "stack": pulumi.get_stack(),
            "restore": notebook.restore,
        }
        work = NotebookWork(
            notebook.volume.removeprefix("calico-lab-"),
            common,
            repositories=self._backup.repositories if self._backup else None,
            lost=self._lost,
            opts=self._options(
                hosts,
                # On the new host of a notebook, what restores a backup is there.
                depends_on=[self._backup.ready] if self._backup else [],
                protect=self._config.keep_work and notebook.name != ORIGINAL,
            ),
        )
        container = NotebookContainer(
            notebook.service,
            common,
            notebook,
            role=STUDENT if notebook.student else "",
            host_container=self._of(notebook, {host.name: _container_id(host) for host in hosts}),
            image=self._of(notebook, self._images),
            network=self._of(notebook, {host.name: self._networks[host.name].docker_name for host in hosts}),
            token=work.token,
            left_behind=work.left_behind,
            backed_up=self._backup is not None,
            cull_seconds=self._config.cull_seconds,
            repositories=" ".join(self._config.repositories),
            lab=self._lab,
            opts=self._options(hosts, depends_on=self._after),
        )
        # The SDK spends time on each output, and known text shows each line of the routes in a preview.
        target: Input[str] = (
            _url(notebook.address) if notebook.address else container.given_address.apply(_url)
        )
        self.routes.append(Route(notebook.name, notebook.path, target, host, enabled=notebook.enabled))
        self.tokens[notebook.name] = work.token
        self.containers[notebook.name] = container
        return Output.all(container.id, host).apply(
            lambda values: {
                "host": values[1],
                "container": notebook.container,
                "path": notebook.path,
                "enabled": notebook.enabled,
            }
        )

    def _options(
        self, hosts: Sequence[Host], *, depends_on: Sequence[Resource], protect: bool = False
    ) -> ResourceOptions:
        own = ResourceOptions(
            parent=self,
            depends_on=depends_on,
            # On `destroy` the host containers are deleted, with all that is in them.
            deleted_with=hosts[0].network,
            protect=protect or None,
            # A notebook that may be elsewhere has left the lost ones.
            retain_on_delete=True if all(host.lost for host in hosts) else None,
        )
        return after_hosts(hosts, own)


def _container_id(host: Host) -> Input[str]:
    return host.container.id if host.container else ""


def _url(address: str) -> str:
    """Where a notebook answers. One that is off may have no address; the proxy asks it for nothing."""
    return f"http://{address or NOWHERE}:{NOTEBOOK_PORT}"
