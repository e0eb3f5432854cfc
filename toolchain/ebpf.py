"""Builds Felix for `dataplane: ebpf`, with libbpf and the BPF programs that it loads into the kernel.

The artifact has `bin/calico-node` and `bpf/*.o`, compiled from Felix' sources with the distribution's clang
and libbpf. It is built only for a lab with that dataplane, because the build needs a C compiler.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from toolchain import cache, packages
from toolchain.errors import ToolchainError
from toolchain.golang import Go
from toolchain.patches import Patch, apply_patches, copy
from toolchain.process import ask
from toolchain.progress import Step

HERE = Path(__file__).parent
LIBBPF = HERE / "libbpf"
HEADERS = Path("/usr/include/bpf")
# Linux 6.18 rejects programs with type information that Debian 12's default clang 14 has compiled.
CLANG, LLC = "clang-19", "llc-19"
DEBIAN_PACKAGES = [
    *("clang-19", "llvm-19", "gcc", "make", "libc6-dev", "linux-libc-dev"),
    *("iproute2", "libbpf-dev", "libelf-dev", "libpcap-dev", "zlib1g-dev"),
]
PATCHES = [
    # Felix drops the packets of a container whose address is from another host's block, because it takes the
    # container for one on that host. Corrected in v3.31.4 (projectcalico/calico#11640), which the Go module
    # proxy does not have.
    Patch(
        "felix/dataplane/linux/bpf_route_mgr.go",
        "&& !cgRoute.Borrowed /* not ours */ {",
        "&& (cgRoute.LocalWorkload || !cgRoute.Borrowed) {",
    ),
    # Felix' health port for Kubernetes services, which the lab does not have, would listen on all addresses.
    Patch(
        "felix/dataplane/linux/int_dataplane.go",
        'healthzAddr := fmt.Sprintf(":%d", config.KubeProxyHealtzPort)',
        'healthzAddr := fmt.Sprintf("127.0.0.1:%d", config.KubeProxyHealtzPort)',
    ),
]
"""Patches that correct faults."""
# In addition to the output of Felix' list-objs (bpf-gpl/Makefile).
_PROGRAMS = ["tc_preamble", "xdp_preamble", "policy_default"]
_MAPS = ["common_map_stub", "ipv4_map_stub", "ipv6_map_stub", "xdp_map_stub"]


def obtain(
    step: Step,
    go: Go,
    module: Path,
    calico: str,
    variables: Mapping[str, str],
    *,
    left_out: Iterable[Patch] = (),
) -> Path:
    """Return the folder with Felix and the BPF programs.

    Args:
        step: The step it is part of.
        go: Builds Felix.
        module: The module that pins Calico.
        calico: Calico's module path.
        variables: String variables of the program, such as its version.
        left_out: The patches of all of Calico's programs.
    """

    def build(folder: Path) -> None:
        if lacking := missing():
            packages.install(step, DEBIAN_PACKAGES, f"dataplane ebpf needs {', '.join(lacking)}")
        patched = apply_patches(step, go, module, {calico: [*left_out, *PATCHES]})
        scratch = folder / "scratch"
        scratch.mkdir()
        # Only libbpf is linked statically, because hosts can install packages of the other libraries.
        (scratch / "lib").mkdir()
        (scratch / "lib/libbpf.a").symlink_to(_library("libbpf.a"))
        go.build(
            step,
            module,
            f"{calico}/node/cmd/calico-node",
            folder / "bin",
            # Go resolves names of hosts and users, because the C library of each host differs.
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
    """The programs and headers that the build needs and this computer lacks."""
    programs = [program for program in (CLANG, LLC, "gcc", "make") if not shutil.which(program)]
    included = ("iproute2/bpf_elf.h", "libelf.h", "pcap.h", "zlib.h")
    headers = [HEADERS / "libbpf.h", *(Path("/usr/include") / name for name in included)]
    return [*programs, *(str(header) for header in headers if not header.exists())]


def objects(step: Step, source: Path, target: Path) -> None:
    """Compile the BPF programs: those for IPv4 that do not log.

    Args:
        step: The step it is part of.
        source: A copy of the folder `felix/bpf-gpl`.
        target: The folder to create for the object files.
    """
    for script in ("list-objs", "calculate-flags"):
        (source / script).chmod(0o755)
    listed = ask(source / "list-objs", cwd=source).stdout.split()
    chosen = [name for name in listed if "_no_log" in name and not name.endswith("_v6.o")]
    if not chosen:
        raise ToolchainError(
            f"{source}/list-objs lists no programs; next: read Felix' Makefile and adapt {__file__}"
        )
    chosen += [f"bin/{name}.o" for name in (*_PROGRAMS, *_MAPS)]
    environment = {**os.environ, "CFLAGS": f"-I{HEADERS}"}
    make = ["make", f"--jobs={os.cpu_count()}", f"CC={CLANG}", f"LD={LLC}", *chosen]
    step.run("compiling Felix' BPF programs", *make, cwd=source, env=environment)
    (source / "bin").rename(target)


def _library(name: str) -> Path:
    """Where gcc finds a library."""
    return Path(ask("gcc", f"-print-file-name={name}").stdout.strip())
