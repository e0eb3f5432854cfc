"""The layout: packages without logic in `__init__.py`, and the paths in docs/architecture.md.

lint-imports checks who may import whom (pyproject.toml).
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
# It checks the version of Python, before a module is imported that an older Python cannot parse.
EXCEPTION = PROJECT / "workspace" / "__init__.py"
FILES = sorted(
    file
    for folder in ("bench", "components", "config", "diagnosis", "lab", "toolchain", "workspace")
    for file in (PROJECT / folder).rglob("__init__.py")
    if file != EXCEPTION
)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.parent.relative_to(PROJECT)))
def test_package_init_has_no_logic(file: Path) -> None:
    docstring, *statements = ast.parse(file.read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(docstring.value, ast.Constant)
    for statement in statements:
        assert isinstance(statement, ast.Import | ast.ImportFrom) or _is_text(statement), ast.unparse(
            statement
        )


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is `__all__`, a constant, or the docstring of one."""
    if isinstance(statement, ast.Assign):
        return isinstance(statement.value, ast.Constant | ast.List | ast.Tuple)
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def test_architecture_page_names_paths_that_exist() -> None:
    text = (PROJECT / "docs" / "architecture.md").read_text()
    paths = re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", text)
    assert len(paths) > 30
    # `scripts/` and `units/` are folders of a component.
    rooms = [PROJECT, PROJECT / "components", PROJECT / "components" / "etcd"]
    assert [path for path in paths if not any((room / path).exists() for room in rooms)] == []


def test_verbs_of_lab_are_imported_outside_of_the_checkout(tmp_path: Path) -> None:
    load = "[importlib.import_module(module) for module, _ in VERBS.values()]"
    script = f"import importlib; from lab.__main__ import VERBS; {load}"
    command = [sys.executable, "-I", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
