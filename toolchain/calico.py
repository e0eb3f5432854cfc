"""Calico's programs, its confd templates and the Docker driver, in the one archive that the hosts get.

Owes: `calico.tar.gz` with `bin/` and `confd/templates/`; for a lab with `dataplane: ebpf` also
`calico-ebpf.tar.gz`, with a Felix for that and `bpf/` beside. The same content gives the same bytes, so that
a host gets a new archive only when something in it is new.
"""

import gzip
import tarfile
from pathlib import Path

from toolchain import bird, cache, ebpf
from toolchain.golang import Go
from toolchain.progress import Step

HERE = Path(__file__).parent
MODULE = HERE / "calico"
DRIVER = HERE.parent / "docker-driver"
DRIVER_VERSION = "v0.1.0"
CALICO = "github.com/projectcalico/calico"
VERSION = "v3.31.0"
VARIABLES = {f"{CALICO}/pkg/buildinfo.Version": VERSION}
ARCHIVE = "calico.tar.gz"
EBPF_ARCHIVE = "calico-ebpf.tar.gz"
COMPRESSION = 1
"""The archive crosses a local network a few times at most: time counts, not size."""


def obtain(step: Step, go: Go, *, with_ebpf: bool) -> Path:
    """The folder with the archive, or both of them."""
    calico, driver, templates = _calico(step, go), _driver(step, go), _templates(go)
    felix = ebpf.obtain(step, go, MODULE, CALICO, VARIABLES) if with_ebpf else None

    def build(folder: Path) -> None:
        step.say(f"packing {ARCHIVE}")
        pack(folder / ARCHIVE, {"bin": [calico / "bin", driver], "confd/templates": [templates]})
        if felix:
            step.say(f"packing {EBPF_ARCHIVE}")
            content = {
                "bin": [felix / "bin", calico / "bin", driver],
                "bpf": [felix / "bpf"],
                "confd/templates": [templates],
            }
            pack(folder / EBPF_ARCHIVE, content)

    step.result = f"{VERSION} and the Docker driver{', with Felix for eBPF' if felix else ''}"
    made_from = [calico.name, driver.name, templates.name, felix.name if felix else "", Path(__file__)]
    return cache.artifact("dist", cache.key(*made_from), build)


def _calico(step: Step, go: Go) -> Path:
    def build(folder: Path) -> None:
        go.build(step, MODULE, "tool", folder / "bin", variables=VARIABLES)

    return cache.artifact("calico", go.key(MODULE, Path(__file__)), build)


def _templates(go: Go) -> Path:
    def build(folder: Path) -> None:
        bird.write_templates(go.module_source(MODULE, CALICO) / "confd/etc/calico/confd/templates", folder)

    return cache.artifact("confd-templates", go.key(MODULE, Path(bird.__file__)), build)


def _driver(step: Step, go: Go) -> Path:
    def build(folder: Path) -> None:
        version = {"main.version": driver_version(DRIVER)}
        go.build(step, DRIVER, "./cmd/calico-docker-driver", folder, variables=version)

    return cache.artifact("docker-driver", go.key(DRIVER, Path(__file__)), build)


def driver_version(module: Path) -> str:
    """The version that the driver of these sources has: another program has another version.

    Tests and documentation do not count, so that changing them gives the hosts no new archive.
    """
    sources = sorted(file for file in module.rglob("*.go") if not file.name.endswith("_test.go"))
    return f"{DRIVER_VERSION}+{cache.key(module / 'go.mod', module / 'go.sum', *sources)}"


def pack(archive: Path, content: dict[str, list[Path]]) -> None:
    """Write an archive that depends on nothing but the files' names and content.

    Args:
        archive: The file to write.
        content: Per folder in the archive, the folders whose files go there; where two have a file of one
            name, that of the first.
    """
    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", COMPRESSION, raw, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tar,
    ):
        for folder, sources in sorted(content.items()):
            chosen = {file.name: file for source in reversed(sources) for file in source.iterdir()}
            for _, file in sorted(chosen.items()):
                entry = tarfile.TarInfo(f"{folder}/{file.name}")
                entry.size = file.stat().st_size
                entry.mode = 0o755 if folder == "bin" else 0o644
                with file.open("rb") as stream:
                    tar.addfile(entry, stream)
