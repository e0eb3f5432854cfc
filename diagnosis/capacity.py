"""Findings about free disk space and free memory of hosts."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from diagnosis.facts import FileSystem, HostFacts
from diagnosis.finding import Finding

CONTROLLER = "the controller"
GIB = 1 << 30
MIN_DISK = 1 * GIB
"""Bytes. etcd keeps up to five log files of 64 MB and writes snapshots of its database. An update of an image
stores it twice for a short time. Notebooks save their files in the rest."""
MIN_MEMORY = GIB // 4
"""Bytes. A notebook kernel needs about as much to start. Without free memory, Linux kills a process of its
choice."""
FREE_DISK = "make room there: docker system df, apt-get clean"
FREE_MEMORY = "give it more memory, or end what else runs there"


def gib(size: int) -> str:
    """Format a number of bytes in GiB."""
    return f"{size / GIB:.1f} GiB"


def shortages(hosts: Mapping[str, HostFacts], controller_kernel: str) -> Iterator[Finding]:
    """Find hosts with little free disk space or memory.

    Hosts that share a kernel (host containers) share disks and memory, and get one finding.

    Args:
        hosts: The facts by host.
        controller_kernel: The boot ID of the controller's kernel.
    """
    by_kernel: dict[str, list[str]] = defaultdict(list)
    for host, facts in hosts.items():
        by_kernel[facts.kernel or host].append(host)
    for kernel, names in by_kernel.items():
        where = ", ".join(names)
        if kernel == controller_kernel:
            where = f"{CONTROLLER}, with {where}"
        sharing = [hosts[name] for name in names]
        yield from _disks(where, sharing)
        memory = min((one.memory for one in sharing if one.memory is not None), default=MIN_MEMORY)
        if memory < MIN_MEMORY:
            what = f"{gib(memory)} of memory are free: Linux ends programs when there is none"
            yield Finding(where, what, FREE_MEMORY)


def _disks(where: str, hosts: list[HostFacts]) -> Iterator[Finding]:
    # Host containers show the same file system under different paths; its size identifies it.
    full: dict[int, list[FileSystem]] = defaultdict(list)
    for disk in (disk for host in hosts for disk in host.disks if disk.free < MIN_DISK):
        full[disk.size].append(disk)
    for size, disks in full.items():
        paths = ", ".join(sorted({disk.path for disk in disks}))
        free = gib(min(disk.free for disk in disks))
        what = f"{free} of {gib(size)} are free in {paths}: etcd and notebooks stop when it is full"
        yield Finding(where, what, FREE_DISK)
