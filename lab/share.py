"""`lab class share`: copies files into the folder `shared` of all notebooks."""

import tarfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from components.hosts import remote
from components.notebooks.step import SCRIPTS
from lab.verb import NoLab, read_outputs

SCRIPT = SCRIPTS / "share.sh"
UPLOADED = "/var/lib/calico-lab/upload/shared.tar"
SECONDS = 900
"""Time limit for each host."""


@click.command("share")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.pass_context
def command(context: click.Context, paths: tuple[Path, ...]) -> None:
    """Copy files and folders into the folder `shared` of all notebooks.

    Files of the same name are replaced; others stay. Run it again after a host was added or replaced.

    Exit code 1 when a host did not get them.
    """
    outputs = read_outputs(context.obj)
    with TemporaryDirectory() as folder:
        archive = Path(folder) / "shared.tar"
        names = pack(paths, archive)
        failed = send({host: outputs.ssh[host] for host in outputs.hosts}, archive)
    for host, cause in failed.items():
        click.echo(
            f"{host}: did not get the files: {cause}; next: 'lab status', then run this again", err=True
        )
    if failed:
        context.exit(1)
    click.echo(f"in the folder shared of all notebooks: {', '.join(names)}")


def pack(paths: Sequence[Path], archive: Path) -> list[str]:
    """Write an archive of files and folders, each by its last name, readable by everybody.

    Args:
        paths: The files and folders.
        archive: The file to write.

    Returns:
        The names.

    Raises:
        NoLab: Two have the same name, or one has none, as `/`.
    """
    names = [path.resolve().name for path in paths]
    if "" in names or len(set(names)) < len(names):
        raise NoLab(f"{', '.join(map(str, paths))}: each needs a name of its own in the folder shared")
    with tarfile.open(archive, "w") as tar:
        for path, name in zip(paths, names, strict=True):
            tar.add(path.resolve(), name, filter=_readable)
    return names


def _readable(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """An entry without its owner and mode; None for what is no file, folder or link."""
    if not (entry.isfile() or entry.isdir() or entry.issym() or entry.islnk()):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def send(ssh: Mapping[str, str], archive: Path) -> dict[str, str]:
    """Unpack an archive in the shared folder of each host, and say when one has it.

    Args:
        ssh: The command that reaches each host.
        archive: The archive.

    Returns:
        The cause by host, for those where it failed.
    """
    failed = {}
    with ThreadPoolExecutor() as pool:
        running = {pool.submit(_unpack, command, archive): host for host, command in ssh.items()}
        for done in as_completed(running):
            answer, host = done.result(), running[done]
            if answer.status:
                failed[host] = answer.error or f"exit code {answer.status}"
            else:
                click.echo(f"{host}: has the files")
    return failed


def _unpack(ssh: str, archive: Path) -> remote.Answer:
    sent = remote.send(ssh, archive, UPLOADED, SECONDS)
    return sent if sent.status else remote.run(ssh, SCRIPT.read_text(), {"ARCHIVE": UPLOADED}, SECONDS)
