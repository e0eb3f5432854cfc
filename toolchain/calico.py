"""Builds Calico's programs and the Docker driver, and packs them for the hosts.

The archive `calico.tar.gz` has `bin/` and `confd/templates/`. A lab with `dataplane: ebpf` also gets
`calico-ebpf.tar.gz`, which has `bpf/` and another Felix. The same content gives the same bytes, because a
changed archive is copied to every host.
"""

import gzip
import hashlib
import tarfile
from pathlib import Path

from toolchain import bird, cache, ebpf
from toolchain.golang import Go
from toolchain.patches import Patch, PatchedSource, apply_patches
from toolchain.progress import Step

HERE = Path(__file__).parent
MODULE = HERE / "calico"
DRIVER = HERE.parent / "docker-driver"
PROGRAM = "./cmd/calico-docker-driver"
DRIVER_VERSION = "v0.1.0"
CALICO = "github.com/projectcalico/calico"
VERSION = "v3.31.0"
VARIABLES = {f"{CALICO}/pkg/buildinfo.Version": VERSION}
LEFT_OUT = [
    # EC2's source/destination check, with the SDK of AWS.
    Patch("felix/aws/ec2.go"),
    Patch("felix/dataplane/driver.go", '\t"github.com/projectcalico/calico/felix/aws"\n'),
    Patch("felix/dataplane/driver.go", '\t"k8s.io/utils/clock"\n'),
    Patch(
        "felix/dataplane/driver.go",
        """\
			c := &clock.RealClock{}
			updater := aws.NewEC2SrcDstCheckUpdater()
			go aws.WaitForEC2SrcDstCheckUpdate(check, healthAggregator, updater, c)
""",
        """\
			log.Errorf("AWSSrcDstCheck is %s, and Calico Lab has built this Felix without the AWS SDK", check)
""",
    ),
    # The server for Envoy's authorization requests; Felix uses only the evaluation in the same package.
    Patch("app-policy/checker/adapter_checkrequest.go"),
    Patch("app-policy/checker/provider.go"),
    Patch("app-policy/checker/server.go"),
    # gopacket, which is used for one constant; and a mock that imports a test library.
    Patch("node/pkg/nodeinit/calico-init_linux.go", '\t"github.com/google/gopacket/layers"\n'),
    Patch("node/pkg/nodeinit/calico-init_linux.go", "uint8(layers.IPProtocolTCP)", "syscall.IPPROTO_TCP"),
    Patch("felix/dataplane/ipsets/mock_ipsets.go"),
]
"""Patches that remove code which the lab does not use, with the large dependencies that it imports."""
ARCHIVE = "calico.tar.gz"
EBPF_ARCHIVE = "calico-ebpf.tar.gz"
CALICO_S, DRIVER_S = 330, 7
"""Processor seconds of the builds on a slow processor; that of the driver follows Calico's."""
COMPRESSION = 1
"""The fastest, because the archive crosses a local network a few times only."""


def obtain(step: Step, go: Go, *, with_ebpf: bool) -> Path:
    """Return the folder with the archive, or with both archives."""
    calico, driver, templates = _calico(step, go), _driver(step, go), _templates(go)
    felix = ebpf.obtain(step, go, MODULE, CALICO, VARIABLES, left_out=LEFT_OUT) if with_ebpf else None

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


def to_build(go: Go) -> float:
    """Processor seconds of the builds that are still to be done."""
    programs = [("calico", _key(go), CALICO_S), ("docker-driver", _driver_key(go), DRIVER_S)]
    return sum(seconds for name, key, seconds in programs if not cache.find(name, key))


def fetch(step: Step, go: Go) -> None:
    """Download the sources of the builds that are still to be done."""
    step.result = "in the cache"
    if not cache.find("calico", _key(go)):
        go.fetch(step, MODULE, "tool", _patched(step, go).modfile)
        step.result = "downloaded"
    if not cache.find("docker-driver", _driver_key(go)):
        go.fetch(step, DRIVER, PROGRAM)
        step.result = "downloaded"


def _key(go: Go) -> str:
    return go.key(MODULE, LEFT_OUT)


def _driver_key(go: Go) -> str:
    return go.key(DRIVER, Path(__file__))


def _patched(step: Step, go: Go) -> PatchedSource:
    return apply_patches(step, go, MODULE, {CALICO: LEFT_OUT})


def _calico(step: Step, go: Go) -> Path:
    def build(folder: Path) -> None:
        modfile = _patched(step, go).modfile
        go.build(step, MODULE, "tool", folder / "bin", modfile=modfile, variables=VARIABLES)

    return cache.artifact("calico", _key(go), build)


def _templates(go: Go) -> Path:
    def build(folder: Path) -> None:
        bird.write_templates(go.module_source(MODULE, CALICO) / "confd/etc/calico/confd/templates", folder)

    return cache.artifact("confd-templates", go.key(MODULE, Path(bird.__file__)), build)


def _driver(step: Step, go: Go) -> Path:
    def build(folder: Path) -> None:
        version = {"main.version": driver_version(DRIVER)}
        go.build(step, DRIVER, PROGRAM, folder, variables=version)

    return cache.artifact("docker-driver", _driver_key(go), build)


def driver_version(module: Path) -> str:
    """The driver's version, which has a hash of its sources.

    Tests and documentation do not count, because a changed driver is copied to every host.
    """
    sources = sorted(file for file in module.rglob("*.go") if not file.name.endswith("_test.go"))
    return f"{DRIVER_VERSION}+{cache.key(module / 'go.mod', module / 'go.sum', *sources)}"


def pack(archive: Path, content: dict[str, list[Path]]) -> None:
    """Write an archive that depends only on the files' names and content, and its SHA-256 beside it.

    Each run of the program needs the digest. To hash the archive takes a tenth of the program's time.

    Args:
        archive: The file to write.
        content: Source folders by folder in the archive; of two files with the same name the first is taken.
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
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    archive.with_name(f"{archive.name}.sha256").write_text(f"{digest}\n")
