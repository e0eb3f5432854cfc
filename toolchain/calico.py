"""Calico's programs, its confd templates and the Docker driver, in the one archive that the hosts get.

Owes: `calico.tar.gz` with `bin/` and `confd/templates/`. The same content gives the same bytes, so that a
host gets a new archive only when something in it is new.
"""

import gzip
import re
import tarfile
from pathlib import Path

from toolchain import cache
from toolchain.errors import ToolchainError
from toolchain.golang import Go
from toolchain.progress import Step

HERE = Path(__file__).parent
MODULE = HERE / "calico"
DRIVER = HERE.parent / "docker-driver"
DRIVER_VERSION = "v0.1.0"
CALICO = "github.com/projectcalico/calico"
VERSION = "v3.31.0"
ARCHIVE = "calico.tar.gz"
COMPRESSION = 1
"""The archive crosses a local network a few times at most: time counts, not size."""
TUNNEL = re.compile(rb'krt_tunnel = "[^"]*";')
TUNNELS = 4
"""How often the templates set BIRD's tunnel in this version of Calico."""


def obtain(step: Step, go: Go) -> Path:
    """The folder with the archive."""
    calico, driver = _calico(step, go), _driver(step, go)

    def build(folder: Path) -> None:
        step.say(f"packing {ARCHIVE}")
        pack(folder / ARCHIVE, {"bin": [calico / "bin", driver], "confd/templates": [calico / "templates"]})

    step.result = f"{VERSION} and the Docker driver"
    return cache.artifact("dist", cache.key(calico.name, driver.name, COMPRESSION), build)


def _calico(step: Step, go: Go) -> Path:
    def build(folder: Path) -> None:
        go.build(step, MODULE, "tool", folder / "bin", **{f"{CALICO}/pkg/buildinfo.Version": VERSION})
        source = go.module_source(MODULE, CALICO) / "confd/etc/calico/confd/templates"
        write_templates(source, folder / "templates")

    return cache.artifact("calico", go.key(MODULE, Path(__file__)), build)


def _driver(step: Step, go: Go) -> Path:
    def build(folder: Path) -> None:
        version = {"main.version": driver_version(DRIVER)}
        go.build(step, DRIVER, "./cmd/calico-docker-driver", folder, **version)

    return cache.artifact("docker-driver", go.key(DRIVER, Path(__file__)), build)


def driver_version(module: Path) -> str:
    """The version that the driver of these sources has: another program has another version.

    Tests and documentation do not count, so that changing them gives the hosts no new archive.
    """
    sources = sorted(file for file in module.rglob("*.go") if not file.name.endswith("_test.go"))
    return f"{DRIVER_VERSION}+{cache.key(module / 'go.mod', module / 'go.sum', *sources)}"


def write_templates(source: Path, target: Path) -> None:
    """Write confd's templates for Debian's BIRD.

    Calico's fork of BIRD has an attribute that names a route's IPIP tunnel. Debian's BIRD does not know it,
    and a network without IPIP has no use for it: the statements that set it go.

    Raises:
        ToolchainError: The templates are not those that this adaptation was made for.
    """
    target.mkdir()
    found = 0
    for template in sorted(source.glob("*.template")):
        text, count = TUNNEL.subn(b"", template.read_bytes())
        found += count
        (target / template.name).write_bytes(text)
    if found != TUNNELS:
        raise ToolchainError(
            f"{source}: {found} statements set krt_tunnel where Calico {VERSION} has {TUNNELS}; "
            f"read the templates and adapt {Path(__file__).name}"
        )


def pack(archive: Path, content: dict[str, list[Path]]) -> None:
    """Write an archive that depends on nothing but the files' names and content.

    Args:
        archive: The file to write.
        content: Per folder in the archive, the folders whose files go there.
    """
    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", COMPRESSION, raw, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tar,
    ):
        for folder, sources in sorted(content.items()):
            for file in sorted(file for source in sources for file in source.iterdir()):
                entry = tarfile.TarInfo(f"{folder}/{file.name}")
                entry.size = file.stat().st_size
                entry.mode = 0o755 if folder == "bin" else 0o644
                with file.open("rb") as stream:
                    tar.addfile(entry, stream)
