"""Installs what a checkout needs: programs and plugins, Python packages, images, the Pulumi stack."""

import math
import os
import time
from pathlib import Path

from toolchain import (
    cache,
    calico,
    current_engine,
    engine,
    golang,
    packages,
    plugins,
    pulumi,
    python_env,
)
from toolchain.download import Download
from toolchain.errors import ToolchainError
from toolchain.process import ask
from toolchain.progress import Steps, side_by_side
from workspace import leftovers, links
from workspace.prepare import notice_gone, prepare
from workspace.stack import Stack

MODULES = [pulumi.CLI, pulumi.LANGUAGE_HOST, plugins.DOCKER, calico.MODULE, calico.DRIVER]
_READ_DATAPLANE = """\
import sys, yaml
config = (yaml.safe_load(open(sys.argv[1])) or {}).get("config") or {}
print((config.get("calico-lab:network") or {}).get("dataplane"))
"""


def setup(stack: Stack) -> None:
    """Install everything that `pulumi up` needs; what is installed is kept."""
    start = time.monotonic()
    stack.require_config()
    installed = stack.root / ".toolchain"
    steps = Steps(10)
    with steps.step("prerequisites") as step:
        packages.install_missing(step)
    with steps.step("Python environment") as step:
        uv = python_env.uv(step)
        python = python_env.project(step, uv, stack.root)
    with steps.step("Go") as step:
        go = golang.obtain(step, MODULES)
    if message := forecast(go):
        print(message, flush=True)
    cli: list[pulumi.Cli] = []

    def programs() -> None:
        with steps.step("Pulumi") as step:
            cli.append(pulumi.obtain(step, go))
        with steps.step("plugins") as step:
            home = plugins.obtain(step, cli[0], go, uv)
        with steps.step("Calico") as step:
            dist = calico.obtain(step, go, with_ebpf=asks_for_ebpf(stack.config, python))
        links.programs(installed / "bin", [*([] if cli[0].on_path else cli[0].programs), *go.programs])
        links.point(installed / "pulumi-home", home)
        links.point(installed / "dist", dist)
        # Tests compile with the same go.mod as the build did, so that they find its objects in Go's cache.
        links.point(installed / "docker-plugin", plugins.patched())

    def images() -> None:
        with steps.step("Go modules") as step:
            calico.fetch(step, go)
        with steps.step("Docker engine") as step:
            engine.obtain(step)
        with steps.step("base images") as step:
            engine.base_images(step)

    # The first lane compiles; the second waits for networks and disks.
    side_by_side(programs, images)
    with steps.step("stack") as step:
        prepare(step, stack, cli[0])
        if stack.own_backend:
            for leftover in leftovers.sweep(stack.name, stack.exported()):
                step.say(f"removed the {leftover.kind} {leftover.name}, which an interrupted run has left")
            notice_gone(step, stack, cli[0])
    print(f"setup is complete after {time.monotonic() - start:.1f} s", flush=True)


def asks_for_ebpf(config: Path, python: Path) -> bool:
    """Whether a stack's config has `dataplane: ebpf`.

    Args:
        config: The stack's file. `pulumi up` reports what is invalid in it; here that counts as no.
        python: The interpreter of the project's environment, because it has PyYAML. The Python that runs
            setup may have only the standard library.
    """
    return ask(python, "-c", _READ_DATAPLANE, config).stdout.strip() == "ebpf"


def forecast(go: golang.Go) -> str:
    """What this run compiles, why, and for how many minutes; empty where nothing has to be compiled."""
    host = Download.of("pulumi").host
    work = {
        f"Pulumi and its plugins, because {host} does not answer,": pulumi.to_build(go),
        "Calico": calico.to_build(go),
    }
    named = [name for name, seconds in work.items() if seconds]
    if not named:
        return ""
    processors = os.cpu_count() or 1
    minutes = math.ceil(sum(work.values()) / processors / 60)
    return (
        f"This first run compiles {' and '.join(named)}\n"
        f"which takes about {minutes} minutes, if the {processors} processors here are slow.\n"
        f"The results are kept in {cache.root()}: later runs, also of other clones, take seconds."
    )


def current_docker_engine(root: Path) -> None:
    """Install the current Docker engine, which only tests of the Docker driver and the bench use."""
    steps = Steps(2)
    with steps.step("Go") as step:
        go = golang.obtain(step, [current_engine.MODULE])
    with steps.step("current Docker engine") as step:
        programs = current_engine.obtain(step, go)
    links.point(root / ".toolchain" / "current-engine", programs)


def ebpf_dataplane(root: Path) -> None:
    """Build what `dataplane: ebpf` needs, whatever the stack's config says."""
    steps = Steps(2)
    with steps.step("Go") as step:
        go = golang.obtain(step, [calico.MODULE, calico.DRIVER])
    with steps.step("Calico") as step:
        dist = calico.obtain(step, go, with_ebpf=True)
    links.point(root / ".toolchain" / "dist", dist)


def lock(root: Path, packages: Path | None = None) -> None:
    """Pin the newest Python packages that the `requirements.in` files allow.

    Args:
        root: The checkout.
        packages: Only this list of packages for notebooks.

    Raises:
        ToolchainError: There is no such list.
    """
    if packages and not packages.is_file():
        raise ToolchainError(f"there is no file {packages}; next: write the packages into it, one on a line")
    with Steps(1).step("lock files") as step:
        uv = python_env.uv(step)
        if packages:
            python_env.lock_packages(step, uv, root, packages.resolve())
        else:
            python_env.lock(step, uv, root)
