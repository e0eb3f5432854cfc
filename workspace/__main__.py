"""`python3 -m workspace`: obtain what the lab is brought up with, and give it back."""

import argparse
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from toolchain import (
    cache,
    calico,
    current_engine,
    ebpf,
    engine,
    golang,
    links,
    packages,
    plugins,
    pulumi,
    python_env,
)
from toolchain.download import Download
from toolchain.errors import ToolchainError
from toolchain.progress import Steps, side_by_side
from workspace import leftovers
from workspace.stack import Stack, forget_salt, prepare

ROOT = Path(__file__).resolve().parent.parent
LINKS = ROOT / ".toolchain"
PYTHON = ROOT / ".venv/bin/python"
MODULES = [pulumi.CLI, pulumi.LANGUAGE_HOST, plugins.DOCKER, calico.MODULE, calico.DRIVER]


def setup(stack: Stack) -> None:
    """Obtain everything that `pulumi up` needs; what is there is kept."""
    start = time.monotonic()
    stack.require_config()
    steps = Steps(10)
    with steps.step("prerequisites") as step:
        packages.install_missing(step)
    with steps.step("Python environment") as step:
        uv = python_env.uv(step)
        python_env.project(step, uv, ROOT)
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
            dist = calico.obtain(step, go, with_ebpf=ebpf.wanted(stack.config, PYTHON))
        links.programs(LINKS / "bin", [*([] if cli[0].on_path else cli[0].programs), *go.programs])
        links.point(LINKS / "pulumi-home", home)
        links.point(LINKS / "dist", dist)
        # As it was built, where it was: so tests compile nothing that the build has left out.
        links.point(LINKS / "docker-plugin", plugins.patched())

    def images() -> None:
        with steps.step("Go modules") as step:
            calico.fetch(step, go)
        with steps.step("Docker engine") as step:
            engine.obtain(step)
        with steps.step("base images") as step:
            engine.base_images(step)

    # The one compiles, the other waits for networks and disks.
    side_by_side(programs, images)
    with steps.step("stack") as step:
        prepare(step, stack, cli[0])
        if stack.own_backend:
            for thing in leftovers.sweep(stack.name, stack.exported()):
                step.say(f"removed the {thing.kind} {thing.name}, which an interrupted run had left")
    print(f"everything is there after {time.monotonic() - start:.1f} s", flush=True)


def forecast(go: golang.Go) -> str:
    """What takes minutes in this run, how many and why; empty where everything has been built before."""
    host = Download.of("pulumi").host
    work = {
        f"Pulumi and its plugins, because {host} does not give them,": pulumi.to_build(go),
        "Calico": calico.to_build(go),
    }
    named = [name for name, seconds in work.items() if seconds]
    if not named:
        return ""
    processors = os.cpu_count() or 1
    minutes = math.ceil(sum(work.values()) / processors / 60)
    return (
        f"This first run compiles {' and '.join(named)}\n"
        f"which takes about {minutes} minutes if the {processors} processors here are slow ones.\n"
        f"It is kept in {cache.root()}: later runs, also of other clones, take seconds."
    )


def obtain_current_engine() -> None:
    """Obtain the Docker engine of today, which only tests of the Docker driver use."""
    steps = Steps(2)
    with steps.step("Go") as step:
        go = golang.obtain(step, [current_engine.MODULE])
    with steps.step("current Docker engine") as step:
        programs = current_engine.obtain(step, go)
    links.point(LINKS / "current-engine", programs)


def obtain_ebpf() -> None:
    """Obtain what `dataplane: ebpf` needs, whatever the stack's config says."""
    steps = Steps(2)
    with steps.step("Go") as step:
        go = golang.obtain(step, [calico.MODULE, calico.DRIVER])
    with steps.step("Calico") as step:
        dist = calico.obtain(step, go, with_ebpf=True)
    links.point(LINKS / "dist", dist)


def lock() -> None:
    """Pin the Python packages anew."""
    with Steps(1).step("lock files") as step:
        python_env.lock(step, python_env.uv(step), ROOT)


def sweep(stack: Stack) -> None:
    """Remove from the engine what carries the stack's label and is not in its state."""
    for thing in leftovers.sweep(stack.name, stack.exported()):
        print(f"removed the {thing.kind} {thing.name}")


def clean(stack: Stack, *, with_cache: bool) -> None:
    """Take the lab down, and remove what `setup` has made in the checkout."""
    if others := stack.others():
        first = "; ".join(f"pulumi destroy --stack {other}" for other in others)
        raise ToolchainError(
            f"the state of {', '.join(others)} is in .state, too, and is still needed; nothing was done. "
            f"First take down what it describes, without PULUMI_BACKEND_URL: . ./env.sh; {first}"
        )
    if stack.has_resources():
        destroy = f". ./env.sh && pulumi destroy --stack {stack.name} --yes --skip-preview --non-interactive"
        if subprocess.run(["sh", "-c", destroy], cwd=stack.root, check=False).returncode:
            raise ToolchainError(
                f"the stack {stack.name} could not be destroyed, so its state is kept; remove the cause and "
                "try again. To give the state up, remove .state: machines of your own then stay as they are."
            )
    made = [stack.root / ".toolchain", stack.root / ".venv", *stack.root.glob("*.egg-info")]
    if stack.own_backend:
        if engine.runs():
            sweep(stack)
        made.append(stack.state)
    else:
        print(f"kept {stack.state}: its passphrase opens {stack.name} in {stack.backend}")
    forget_salt(stack)
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)
    if with_cache:
        shutil.rmtree(cache.root(), ignore_errors=True)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m workspace", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in {
        "setup": "obtain everything that `pulumi up` needs; what is there is kept",
        "current-engine": "obtain the Docker engine of today, which tests of the Docker driver use",
        "ebpf": "obtain what `dataplane: ebpf` needs, which setup does where the stack's config says so",
        "lock": "pin the newest Python packages that the requirements.in files allow",
        "sweep": "remove from the Docker engine what an interrupted run of the stack has left",
        "stop-engine": "stop the Docker engine, if setup has started it",
        "clean": "take the lab down and remove what setup has made in this checkout",
    }.items():
        arguments = verbs.add_parser(verb, help=text, description=text)
        if verb in {"setup", "sweep", "clean"}:
            arguments.add_argument("--stack", default="lab", help="the Pulumi stack (lab)")
        if verb == "clean":
            arguments.add_argument(
                "--cache", action="store_true", help=f"also the shared cache, {cache.root()}"
            )
    return parser


def main() -> int:
    """Do what the command line says; return the exit code."""
    arguments = _arguments().parse_args()
    # A terminated run cleans up as an interrupted one does, and also where a shell has had SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        match arguments.verb:
            case "setup":
                setup(Stack(ROOT, arguments.stack))
            case "current-engine":
                obtain_current_engine()
            case "ebpf":
                obtain_ebpf()
            case "lock":
                lock()
            case "sweep":
                sweep(Stack(ROOT, arguments.stack))
            case "stop-engine":
                engine.stop()
            case "clean":
                clean(Stack(ROOT, arguments.stack), with_cache=arguments.cache)
    except (ToolchainError, leftovers.ForeignLabError) as error:
        print(f"workspace: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"workspace: interrupted; what is done is kept, {arguments.verb} goes on from there",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
