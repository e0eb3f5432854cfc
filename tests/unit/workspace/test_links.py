"""`.toolchain/`: links to the artifacts of the last setup, and nothing else."""

from pathlib import Path

from workspace import links


def test_point_changes_and_removes_a_link(tmp_path: Path) -> None:
    link = tmp_path / ".toolchain" / "dist"
    links.point(link, tmp_path / "one")
    assert link.readlink() == tmp_path / "one"
    links.point(link, tmp_path / "two")
    assert link.readlink() == tmp_path / "two"
    links.point(link, None)
    assert not link.is_symlink()
    links.point(link, None)


def test_programs_removes_links_that_are_not_wanted(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    links.programs(folder, [tmp_path / "pulumi", tmp_path / "go"])
    assert {link.name for link in folder.iterdir()} == {"pulumi", "go"}
    links.programs(folder, [tmp_path / "new" / "pulumi"])
    assert [link.readlink() for link in folder.iterdir()] == [tmp_path / "new" / "pulumi"]
    links.programs(folder, [])
    assert not list(folder.iterdir())
