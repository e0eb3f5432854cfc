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
from toolchain.mend import Mend, Mended, mended
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
    # The switch of Amazon's machines that lets them forward packets: the SDK of that cloud.
    Mend("felix/aws/ec2.go"),
    Mend("felix/dataplane/driver.go", '\t"github.com/projectcalico/calico/felix/aws"\n'),
    Mend("felix/dataplane/driver.go", '\t"k8s.io/utils/clock"\n'),
    Mend(
        "felix/dataplane/driver.go",
        """\
			c := &clock.RealClock{}
			updater := aws.NewEC2SrcDstCheckUpdater()
			go aws.WaitForEC2SrcDstCheckUpdate(check, healthAggregator, updater, c)
""",
        """\
			log.Errorf("AWSSrcDstCheck is %s, and this Felix was built by Calico Lab, without clouds", check)
""",
    ),
    # The other side of Envoy's requests for a decision: Felix evaluates flows with the same package.
    Mend("app-policy/checker/adapter_checkrequest.go"),
    Mend("app-policy/checker/provider.go"),
    Mend("app-policy/checker/server.go"),
    # A library for packets, for one constant; and one for tests, with the character sets of the world.
    Mend("node/pkg/nodeinit/calico-init_linux.go", '\t"github.com/google/gopacket/layers"\n'),
    Mend("node/pkg/nodeinit/calico-init_linux.go", "uint8(layers.IPProtocolTCP)", "syscall.IPPROTO_TCP"),
    Mend("felix/dataplane/ipsets/mock_ipsets.go"),
]
"""What of Calico a lab has no use for, by what it would compile."""
ARCHIVE = "calico.tar.gz"
EBPF_ARCHIVE = "calico-ebpf.tar.gz"
CALICO_S, DRIVER_S = 330, 7
"""Processor seconds that the programs take, on slow processors; the driver after the others."""
COMPRESSION = 1
"""The archive crosses a local network a few times at most: time counts, not size."""


def obtain(step: Step, go: Go, *, with_ebpf: bool) -> Path:
    """The folder with the archive, or both of them."""
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
    """The processor seconds that building the programs takes; none where all are there."""
    programs = [("calico", _key(go), CALICO_S), ("docker-driver", _driver_key(go), DRIVER_S)]
    return sum(seconds for name, key, seconds in programs if not cache.find(name, key))


def fetch(step: Step, go: Go) -> None:
    """Bring what is to be compiled next, while something else is compiled."""
    step.result = "there"
    if not cache.find("calico", _key(go)):
        go.fetch(step, MODULE, "tool", _mended(step, go).modfile)
        step.result = "downloaded"
    if not cache.find("docker-driver", _driver_key(go)):
        go.fetch(step, DRIVER, PROGRAM)
        step.result = "downloaded"


def _key(go: Go) -> str:
    return go.key(MODULE, LEFT_OUT)


def _driver_key(go: Go) -> str:
    return go.key(DRIVER, Path(__file__))


def _mended(step: Step, go: Go) -> Mended:
    return mended(step, go, MODULE, {CALICO: LEFT_OUT})


def _calico(step: Step, go: Go) -> Path:
    def build(folder: Path) -> None:
        modfile = _mended(step, go).modfile
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
