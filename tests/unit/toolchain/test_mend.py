"""Faults of upstream modules: mended in a copy that takes the module's place, or the build ends."""

import shutil
from pathlib import Path

import pytest

from toolchain import calico, ebpf, plugins
from toolchain.errors import ToolchainError
from toolchain.golang import Go
from toolchain.mend import Mend, mended
from toolchain.process import ask
from toolchain.progress import Step

PINNED = [
    pytest.param(plugins.DOCKER, plugins.UPSTREAM, plugins.MENDS, id="docker-plugin"),
    pytest.param(calico.MODULE, calico.CALICO, ebpf.MENDS, id="calico"),
]


@pytest.mark.parametrize(("module", "dependency", "mends"), PINNED)
def test_a_build_takes_the_copy_without_the_faults(
    step: Step, tmp_path: Path, module: Path, dependency: str, mends: list[Mend]
) -> None:
    program = shutil.which("go")
    assert program, "make test has Go on PATH"
    go = Go(Path(program), on_path=True)
    source, modfile = mended(step, go, module, dependency, mends, folder=tmp_path / "mended")
    assert mends
    for file, fault, without in mends:
        text = (source / file).read_text()
        assert fault not in text
        assert text.count(without) == 1
    listed = ("list", f"-modfile={modfile}", "-m", "-f", "{{.Dir}}", dependency)
    assert ask(program, *listed, cwd=module, env=go.environment).stdout.strip() == str(source)


@pytest.mark.parametrize("text", ["", "fault fault"])
def test_another_text_than_the_one_to_mend_ends_the_build(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.go").write_text(text)
    with pytest.raises(ToolchainError, match=r"a\.go is not the file that .* is to mend"):
        Mend("a.go", "fault", "none").apply(tmp_path)
    with pytest.raises(ToolchainError, match=r"b\.go is not the file"):
        Mend("b.go", "fault", "none").apply(tmp_path)
