"""The lock file of a list of packages for notebooks."""

from pathlib import Path

import pytest

from components.services.packages import DEFAULT, packages_lock

ROOT = Path(__file__).resolve().parents[3]
JUPYTERLAB = "jupyterlab==4.6.6 \\\n    --hash=sha256:1\npackaging==26.3 \\\n    --hash=sha256:2\n"
LOCKED = "# numpy pandas>=3\nnumpy==2.4.6 \\\n    --hash=sha256:3\npackaging==26.3 \\\n    --hash=sha256:2\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    image = tmp_path / "images" / "notebook"
    image.mkdir(parents=True)
    (image / "requirements.lock").write_text(JUPYTERLAB)
    (tmp_path / "class.in").write_text("# for the course\npandas >= 3  # tables\n\nnumpy\n")
    (tmp_path / "class.lock").write_text(LOCKED)
    return tmp_path


def problem(root: Path, source: str = "class.in") -> str:
    with pytest.raises(ValueError) as refused:
        packages_lock(Path(source), root)
    return str(refused.value)


def test_packages_lock_of_the_image_is_current() -> None:
    assert packages_lock(DEFAULT, ROOT) == ROOT / "images" / "notebook" / "packages.lock"


def test_packages_lock_of_an_own_list(root: Path) -> None:
    assert packages_lock(Path("class.in"), root) == root / "class.lock"
    assert packages_lock(root / "class.in", root) == root / "class.lock"


def test_packages_lock_of_a_missing_list(root: Path) -> None:
    assert problem(root, "other.in") == (
        "there is no file other.in; next: write the packages into it, one on a line"
    )


def test_packages_lock_is_no_list(root: Path) -> None:
    assert "class.lock is a lock file" in problem(root, "class.lock")


def test_packages_lock_that_is_missing(root: Path) -> None:
    (root / "class.lock").unlink()
    assert problem(root) == (
        "the packages in class.in are not locked; next: python3 -m workspace lock --packages class.in"
    )


def test_packages_lock_of_another_list(root: Path) -> None:
    (root / "class.in").write_text("numpy\npandas>=3\nscikit-learn\n")
    assert problem(root).startswith("class.in has changed since class.lock was written; next: python3 -m")


def test_packages_lock_for_another_jupyterlab(root: Path) -> None:
    (root / "class.lock").write_text(LOCKED.replace("packaging==26.3", "packaging==25.0"))
    assert problem(root).startswith("class.lock has packaging 25.0, and JupyterLab has 26.3; next: python3")
