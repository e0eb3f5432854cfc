"""Felix for `dataplane: ebpf`: built with libbpf, and with the programs that it loads into the kernel.

Owes: a folder with `bin/calico-node` and `bpf/*.o`, compiled from Felix' own sources with the distribution's
clang and libbpf. Only a lab with that dataplane needs them, so only that asks for a C compiler.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from toolchain import cache, packages
from toolchain.errors import ToolchainError
from toolchain.golang import Go
from toolchain.mend import Mend, copy, mended
from toolchain.process import ask
from toolchain.progress import Step

HERE = Path(__file__).parent
LIBBPF = HERE / "libbpf"
HEADERS = Path("/usr/include/bpf")
# What Debian's own clang 14 makes of the programs with type information, Linux 6.18 refuses.
CLANG, LLC = "clang-19", "llc-19"
DEBIAN_PACKAGES = [
    *("clang-19", "llvm-19", "gcc", "make", "libc6-dev", "linux-libc-dev"),
    *("iproute2", "libbpf-dev", "libelf-dev", "libpcap-dev", "zlib1g-dev"),
]
MENDS = [
    # A container with an address out of another host's block: Felix takes it for one of that host's and drops
    # its packets. Mended upstream in v3.31.4 (projectcalico/calico#11640), which is no Go module to be had.
    Mend(
        "felix/dataplane/linux/bpf_route_mgr.go",
        "&& !cgRoute.Borrowed /* not ours */ {",
        "&& (cgRoute.LocalWorkload || !cgRoute.Borrowed) {",
    ),
    # Whether its part for Kubernetes' services, of which there are none, is healthy is not for all to ask.
    Mend(
        "felix/dataplane/linux/int_dataplane.go",
        'healthzAddr := fmt.Sprintf(":%d", config.KubeProxyHealtzPort)',
        'healthzAddr := fmt.Sprintf("127.0.0.1:%d", config.KubeProxyHealtzPort)',
    ),
]
"""What is wrong with Calico's source."""
# Beside those of Felix' list-objs (bpf-gpl/Makefile).
_PROGRAMS = ["tc_preamble", "xdp_preamble", "policy_default"]
_MAPS = ["common_map_stub", "ipv4_map_stub", "ipv6_map_stub", "xdp_map_stub"]


def obtain(
    step: Step,
    go: Go,
    module: Path,
    calico: str,
    variables: Mapping[str, str],
    *,
    left_out: Iterable[Mend] = (),
) -> Path:
    """The folder with Felix' program and those for the kernel.

    Args:
        step: The step it is part of.
        go: What the program is built with.
        module: The module that pins Calico.
        calico: Calico's path as a module.
        variables: String variables of the program, such as its version.
        left_out: The patches that all of Calico's programs are built with.
    """

    def build(folder: Path) -> None:
        if lacking := missing():
            packages.install(step, DEBIAN_PACKAGES, f"dataplane ebpf needs {', '.join(lacking)}")
        patched = mended(step, go, module, {calico: [*left_out, *MENDS]})
        scratch = folder / "scratch"
        scratch.mkdir()
        # Of the libraries only libbpf goes into the program: the others are packages that all hosts can have.
        (scratch / "lib").mkdir()
        (scratch / "lib/libbpf.a").symlink_to(_library("libbpf.a"))
        go.build(
            step,
            module,
            f"{calico}/node/cmd/calico-node",
            folder / "bin",
            # Names of hosts and users are looked up by Go, and not by each host's own C library.
            c_tags="netgo,osusergo",
            c_environment={
                "CGO_CFLAGS": f"-O2 -I{LIBBPF} -I{HEADERS}",
                "CGO_LDFLAGS": f"-L{scratch / 'lib'}",
            },
            modfile=patched.modfile,
            variables=variables,
        )
        copy(patched.source(calico) / "felix/bpf-gpl", scratch / "bpf-gpl")
        objects(step, scratch / "bpf-gpl", folder / "bpf")
        shutil.rmtree(scratch)

    return cache.artifact("felix-ebpf", go.key(module, LIBBPF, Path(__file__), left_out), build)


def missing() -> list[str]:
    """What of a compiler and its libraries is not there, as a person would look for it."""
    programs = [program for program in (CLANG, LLC, "gcc", "make") if not shutil.which(program)]
    included = ("iproute2/bpf_elf.h", "libelf.h", "pcap.h", "zlib.h")
    headers = [HEADERS / "libbpf.h", *(Path("/usr/include") / name for name in included)]
    return [*programs, *(str(header) for header in headers if not header.exists())]


def objects(step: Step, source: Path, target: Path) -> None:
    """Compile the programs for the kernel: those for IPv4 that do not write a log.

    Args:
        step: The step it is part of.
        source: A copy of the folder `felix/bpf-gpl`.
        target: The folder to make; it gets the objects alone.
    """
    for script in ("list-objs", "calculate-flags"):
        (source / script).chmod(0o755)
    listed = ask(source / "list-objs", cwd=source).stdout.split()
    chosen = [name for name in listed if "_no_log" in name and not name.endswith("_v6.o")]
    if not chosen:
        raise ToolchainError(
            f"{source}/list-objs lists no programs; read Felix' Makefile and adapt {__file__}"
        )
    chosen += [f"bin/{name}.o" for name in (*_PROGRAMS, *_MAPS)]
    environment = {**os.environ, "CFLAGS": f"-I{HEADERS}"}
    make = ["make", f"--jobs={os.cpu_count()}", f"CC={CLANG}", f"LD={LLC}", *chosen]
    step.run("compiling Felix' programs for the kernel", *make, cwd=source, env=environment)
    (source / "bin").rename(target)


def _library(name: str) -> Path:
    """Where the compiler finds a library."""
    return Path(ask("gcc", f"-print-file-name={name}").stdout.strip())
