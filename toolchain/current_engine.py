"""The Docker engine of today, for tests of the Docker driver: hosts have the one of their own distribution.

Owes: `dockerd`, `docker-proxy` and `runc` in one folder. containerd and the client are the machine's own:
both sides keep to older ones for years.
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
    """The folder with the engine's programs."""

    def build(folder: Path) -> None:
        version = {f"{MOBY}/dockerversion.Version": pinned(MODULE, MOBY).removeprefix("v")}
        for program in ("dockerd", "docker-proxy"):
            go.build(step, MODULE, f"{MOBY}/cmd/{program}", folder, variables=version)
        # It enters namespaces in C, before Go has threads; without seccomp it refuses the engine's profile.
        go.build(
            step, MODULE, RUNC, folder, c_tags="seccomp", variables={"main.version": pinned(MODULE, RUNC)}
        )

    step.result = f"{pinned(MODULE, MOBY)} with runc {pinned(MODULE, RUNC)}"
    return cache.artifact("current-engine", go.key(MODULE, Path(__file__)), build)
