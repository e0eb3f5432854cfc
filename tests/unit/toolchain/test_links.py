"""`.toolchain/`: links to the artifacts of the last setup and to nothing else."""

from pathlib import Path

from toolchain import links


def test_a_link_follows_its_artifact(tmp_path: Path) -> None:
    link = tmp_path / ".toolchain" / "dist"
    links.point(link, tmp_path / "one")
    assert link.readlink() == tmp_path / "one"
    links.point(link, tmp_path / "two")
    assert link.readlink() == tmp_path / "two"
    links.point(link, None)
    assert not link.is_symlink()
    links.point(link, None)


def test_programs_that_are_no_longer_wanted_go(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    links.programs(folder, [tmp_path / "pulumi", tmp_path / "go"])
    assert {link.name for link in folder.iterdir()} == {"pulumi", "go"}
    links.programs(folder, [tmp_path / "new" / "pulumi"])
    assert [link.readlink() for link in folder.iterdir()] == [tmp_path / "new" / "pulumi"]
    links.programs(folder, [])
    assert not list(folder.iterdir())
