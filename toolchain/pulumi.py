"""The Pulumi CLI and its Python language host.

Owes: one of three origins, in this order, and says which: an official CLI on PATH that is new enough; the
official one by download, where its host answers; both built from their pinned Go modules.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from toolchain import cache
from toolchain.download import PATIENCE, Download
from toolchain.golang import Go
from toolchain.process import ask
from toolchain.progress import Step

HERE = Path(__file__).parent
CLI = HERE / "pulumi"
LANGUAGE_HOST = HERE / "language-python"
OFFICIAL, BUILT = "pulumi-official", "pulumi"
"""The names of the artifacts."""
SDK = "github.com/pulumi/pulumi/sdk/v3"
OLDEST = (3, 226)
"""From the year of the SDK: both speak one protocol, and an older engine does not know its newer calls. Those
before take a `replacement_trigger` that is an output for another one each time (pulumi#22119, #22120)."""


@dataclass(frozen=True)
class Cli:
    """A Pulumi CLI."""

    folder: Path
    """Holds `pulumi` and its language host."""
    origin: str
    official: bool
    on_path: bool = False

    @property
    def program(self) -> Path:
        """The CLI itself."""
        return self.folder / "pulumi"

    @property
    def programs(self) -> list[Path]:
        """The CLI and what it starts."""
        return sorted(self.folder.glob("pulumi*"))


def obtain(step: Step, go: Go) -> Cli:
    """The CLI and the language host; what an earlier run made is taken without asking for downloads."""
    cli = _on_path(step) or _cached(go) or _downloaded(step) or _built(step, go)
    step.result = cli.origin
    return cli


def acceptable(version: str) -> bool:
    """Whether the lab runs with a CLI of this version."""
    match = re.match(r"v?(\d+)\.(\d+)\.", version)
    return match is not None and (int(match[1]), int(match[2])) >= OLDEST


def _on_path(step: Step) -> Cli | None:
    for folder in map(Path, os.get_exec_path()):
        program = (folder / "pulumi").resolve()
        # What lies in the cache is ours; it is on PATH where env.sh has been sourced.
        if not os.access(program, os.X_OK) or program.is_relative_to(cache.root().resolve()):
            continue
        version = ask(
            program, "version", env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}
        ).stdout.strip()
        if acceptable(version):
            return Cli(program.parent, f"{version} from PATH ({program})", official=True, on_path=True)
        step.say(f"{program} is {version or 'broken'}, the lab needs {'.'.join(map(str, OLDEST))} or newer")
    return None


def _cached(go: Go) -> Cli | None:
    download = Download.of("pulumi")
    if folder := cache.find(OFFICIAL, cache.key(download)):
        return _official_cli(folder, download)
    if folder := cache.find(BUILT, go.key(CLI, LANGUAGE_HOST)):
        return _built_cli(folder)
    return None


def _official_cli(folder: Path, download: Download) -> Cli:
    return Cli(folder, f"v{download.version}, official, downloaded and verified", official=True)


def _built_cli(folder: Path) -> Cli:
    return Cli(folder, f"{pinned(CLI, SDK)}, built from its Go modules", official=False)


def _downloaded(step: Step) -> Cli | None:
    download = Download.of("pulumi")
    if not download.sha256:
        return None
    if not download.answers():
        step.say(f"{download.host} gives nothing in {PATIENCE:.0f} s: Pulumi is built from its Go modules")
        return None

    def build(folder: Path) -> None:
        archive = folder / "archive.tar.gz"
        step.say(f"downloading Pulumi v{download.version}")
        download.fetch(archive)
        step.run("unpacking Pulumi", "tar", "-xzf", archive, "-C", folder, "--strip-components=1")
        archive.unlink()

    return _official_cli(cache.artifact(OFFICIAL, cache.key(download), build), download)


def _built(step: Step, go: Go) -> Cli:
    def build(folder: Path) -> None:
        version = f"{SDK}/go/common/version.Version"
        go.build(step, CLI, "tool", folder, variables={version: pinned(CLI, SDK)})
        go.build(step, LANGUAGE_HOST, "tool", folder, variables={version: pinned(LANGUAGE_HOST, SDK)})
        # Of the CLI's version, though the language host is older: they are the program's side of the wire.
        source = go.module_source(CLI, SDK) / "python"
        for script in ("cmd/pulumi-language-python-exec", "dist/pulumi-resource-pulumi-python"):
            target = shutil.copyfile(source / script, folder / Path(script).name)
            target.chmod(0o755)

    return _built_cli(cache.artifact(BUILT, go.key(CLI, LANGUAGE_HOST), build))


def pinned(module: Path, dependency: str) -> str:
    """The version of a dependency in a module's go.mod."""
    line = re.compile(rf"^\s*(?:require )?{re.escape(dependency)} (v\S+)", re.MULTILINE)
    match = line.search((module / "go.mod").read_text())
    if not match:
        raise LookupError(f"{module}/go.mod does not require {dependency}")
    return match[1]
