"""Felix for eBPF: what is compiled, and the error where a compiler is missing."""

import os
from pathlib import Path

import pytest

from toolchain import ebpf
from toolchain.errors import ToolchainError
from toolchain.golang import Go
from toolchain.patches import copy
from toolchain.progress import Step

# Like Felix' Makefile, but it compiles nothing.
MAKEFILE = """\
CFLAGS += -O2
bin/%.o:
\t@mkdir -p bin
\t@echo "$(CC) $(CFLAGS)" >$@
"""
LISTED = [
    "from_wep_no_log",
    "from_wep_no_log_v6",
    "from_wep_debug",
    "to_hep_no_log_co-re",
    "xdp_no_log_co-re_v6",
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Felix' sources as in the module cache: read-only and not executable."""
    folder = tmp_path / "cached"
    (folder / "inner").mkdir(parents=True)
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "calculate-flags").write_text("#!/bin/sh\n")
    (folder / "list-objs").write_text(f"#!/bin/sh\nprintf 'bin/%s.o\\n' {' '.join(LISTED)}\n")
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


@pytest.fixture
def scratch(source: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    copy(source, folder)
    return folder


def test_objects_compiles_programs_for_ipv4_that_do_not_log(
    step: Step, scratch: Path, tmp_path: Path
) -> None:
    target = tmp_path / "bpf"
    ebpf.objects(step, scratch, target)
    compiled = {file.stem for file in target.iterdir()}
    assert {"from_wep_no_log", "to_hep_no_log_co-re", "tc_preamble", "ipv4_map_stub"} <= compiled
    assert not compiled & {"from_wep_no_log_v6", "from_wep_debug", "xdp_no_log_co-re_v6"}
    assert (target / "tc_preamble.o").read_text() == "clang-19 -I/usr/include/bpf -O2\n"


def test_objects_with_an_empty_list_is_an_error(step: Step, scratch: Path, tmp_path: Path) -> None:
    (scratch / "list-objs").write_text("#!/bin/sh\n")
    with pytest.raises(ToolchainError, match="list-objs lists no programs"):
        ebpf.objects(step, scratch, tmp_path / "bpf")


def test_obtain_names_missing_headers_before_it_builds(
    step: Step, go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ebpf, "HEADERS", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ToolchainError) as refused:
        ebpf.obtain(step, go, tmp_path, "calico", {})
    # It also names what this computer lacks.
    named = str(refused.value).partition("dataplane ebpf needs ")[2]
    assert f"{tmp_path}/libbpf.h" in named
    assert "install clang-19 gcc" in str(refused.value)
