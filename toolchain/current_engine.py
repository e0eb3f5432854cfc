"""Builds the current Docker engine, for tests of the Docker driver; hosts have their distribution's engine.

The artifact has `dockerd`, `docker-proxy` and `runc`. containerd and the client are those of this computer,
because the engine supports older ones.
"""

from pathlib import Path

from toolchain import cache
from toolchain.golang import Go
from toolchain.progress import Step
from toolchain.pulumi import pinned

MODULE = Path(__file__).parent / "current-engine"
MOBY = "github.com/moby/moby/v2"
RUNC = "github.com/opencontainers/runc"


def obtain(step: Step, go: Go) -> Path:
    """Return the folder with the engine's programs."""

    def build(folder: Path) -> None:
        version = {f"{MOBY}/dockerversion.Version": pinned(MODULE, MOBY).removeprefix("v")}
        for program in ("dockerd", "docker-proxy"):
            go.build(step, MODULE, f"{MOBY}/cmd/{program}", folder, variables=version)
        # runc enters namespaces in C, before Go starts threads; it needs seccomp for the engine's profile.
        go.build(
            step, MODULE, RUNC, folder, c_tags="seccomp", variables={"main.version": pinned(MODULE, RUNC)}
        )

    step.result = f"{pinned(MODULE, MOBY)} with runc {pinned(MODULE, RUNC)}"
    return cache.artifact("current-engine", go.key(MODULE, Path(__file__)), build)
