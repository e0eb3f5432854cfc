"""Bare hosts, whose path is the limit for packets between containers on two hosts.

They are on the same network as the lab's hosts and have neither Docker nor Calico, so that packets meet no
netfilter table. Accepting packets early would not be the same, because each table costs time even then. They
need `provider: docker`, because they are containers on the controller.

The same pair of interfaces can be created on the lab's own hosts. The difference is the cost of these hosts'
tables for every packet.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from components.hosts import remote
from workspace.outputs import Outputs

NETWORK = "calico-lab"
IMAGE = "calico-lab/host:latest"
GUESTS = ("198.18.0.1", "198.18.0.2")
"""Addresses for benchmarks (RFC 2544)."""
SPACE = "calico-lab-bare"
LINK = "bare0"
_MAKE = Path(__file__).with_name("bare.sh")

Shell = Callable[[str], str]


class BareError(Exception):
    """A bare host could not be created, or a command on it or on a host of the lab failed."""


def possible() -> bool:
    """Whether the lab's hosts are containers of the controller's engine."""
    command = ["docker", "network", "inspect", NETWORK]
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0


@contextmanager
def hosts(name: str, host: str, *, tracked: bool = False) -> Iterator[tuple[Shell, Shell]]:
    """Create two bare hosts; provide a shell in the guest of each, and remove them at the end.

    Args:
        name: A part of their names.
        host: A host of the lab. They get its labels, so that `sweep` finds what a crash leaves.
        tracked: Whether they track connections.
    """
    names = [f"calico-lab-bare-{name}-{number}" for number in (1, 2)]
    labels = json.loads(_docker("inspect", "--format", "{{json .Config.Labels}}", f"calico-lab-{host}"))
    flags = [flag for key, value in labels.items() for flag in ("--label", f"{key}={value}")]
    # `ip netns` mounts, and Docker mounts the part of /proc read-only that has the settings of a router.
    flags += ["--cap-add", "NET_ADMIN", "--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined"]
    flags += ["--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"]
    try:
        addresses = []
        for one in names:
            run = ["run", "--detach", "--name", one, "--network", NETWORK, *flags]
            _docker(*run, "--entrypoint", "sleep", IMAGE, "infinity")
            format_ = f'{{{{(index .NetworkSettings.Networks "{NETWORK}").IPAddress}}}}'
            addresses.append(_docker("inspect", "--format", format_, one).strip())
        for one, address, peer, via in zip(names, GUESTS, GUESTS[::-1], addresses[::-1], strict=True):
            settings = _settings(address, peer, via) | {"TRACKED": "yes" if tracked else ""}
            environment = [flag for key, value in settings.items() for flag in ("--env", f"{key}={value}")]
            _docker("exec", "--interactive", *environment, one, "bash", "-s", stdin=_MAKE.read_text())
        yield partial(_in_container, names[0]), partial(_in_container, names[1])
    finally:
        subprocess.run(["docker", "rm", "--force", *names], capture_output=True, check=False, timeout=60)


@contextmanager
def on_lab_hosts(outputs: Outputs, here: str, there: str) -> Iterator[tuple[Shell, Shell]]:
    """Create the pairs on two of the lab's hosts; provide a shell in each guest; remove them at the end."""
    pair = (here, there)
    try:
        for host, other, address, peer in zip(pair, pair[::-1], GUESTS, GUESTS[::-1], strict=True):
            settings = _settings(address, peer, outputs.hosts[other])
            on_host(outputs.ssh[host], _MAKE.read_text(), settings)
        yield partial(_in_space, outputs.ssh[here]), partial(_in_space, outputs.ssh[there])
    finally:
        # The kernel removes the route of the deleted interface, and not the one to the other host's guest.
        for host, peer in zip(pair, GUESTS[::-1], strict=True):
            remote.run(outputs.ssh[host], f"ip netns delete {SPACE}; ip route delete {peer}")


def _settings(address: str, peer: str, via: str) -> dict[str, str]:
    return {"SPACE": SPACE, "LINK": LINK, "ADDRESS": address, "PEER": peer, "VIA": via}


def _in_container(name: str, command: str) -> str:
    return _docker("exec", name, "ip", "netns", "exec", SPACE, "sh", "-c", command)


def _in_space(ssh: str, command: str) -> str:
    return on_host(ssh, f'ip netns exec {SPACE} sh -c "$COMMAND"', {"COMMAND": command})


def on_host(ssh: str, script: str, variables: dict[str, str] | None = None) -> str:
    """Run a script on a host of the lab and return its output.

    Raises:
        BareError: It failed; the message has its standard error.
    """
    answer = remote.run(ssh, script, variables)
    if answer.status != 0:
        raise BareError(f"{ssh}: {answer.error or answer.text}")
    return answer.text


def _docker(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        ["docker", *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        raise BareError(f"docker {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
