"""Files that are placed together: whole, with their mode, none left over."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.hosts import files
from components.hosts.files import HEADING, digest, render
from tests.unit.pretend_host import PretendHost

PLACE = Path(files.__file__).with_name("scripts") / "place-files.sh"
REMOVE = Path(files.__file__).with_name("scripts") / "remove-files.sh"
VARIABLES = {"HOST": "a0", "NAME": "etcd-settings", "MODE": "0640", "OWNER": "etcd:etcd"}
RECORD = "/var/lib/calico-lab/files/etcd-settings"


@pytest.fixture
def host(tmp_path: Path) -> PretendHost:
    return PretendHost(tmp_path)


def place(host: PretendHost, content: dict[str, str]) -> None:
    document = render({str(host.path(path)): text for path, text in content.items()})
    done = host.run(PLACE, VARIABLES, document)
    assert (done.returncode, done.stderr) == (0, "")


def test_each_file_arrives_as_it_is(host: PretendHost) -> None:
    content = {
        "/etc/calico-lab/etcd/etcd.env": "name: a0\n\n  indented: 'quoted' $HOME `id` \\n\n",
        "/etc/calico-lab/pki/etcd.key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    }
    place(host, content)
    for path, text in content.items():
        assert host.path(path).read_text() == text
        assert stat.S_IMODE(host.path(path).stat().st_mode) == 0o640


def test_owner_is_set_before_a_file_is_in_its_place(host: PretendHost) -> None:
    host.program("chown", f'[ ! -e "{host.path("/etc/calico-lab/a")}" ] || exit 1')
    place(host, {"/etc/calico-lab/a": "1"})
    (call,) = host.calls
    assert call.startswith("chown etcd:etcd ")


def test_nothing_is_placed_when_one_cannot_be(host: PretendHost) -> None:
    host.program("chown", "exit 1")
    document = render({str(host.path(f"/etc/calico-lab/{name}")): name for name in "ab"})
    assert host.run(PLACE, VARIABLES, document).returncode != 0
    assert list(host.path("/etc/calico-lab").iterdir()) == []


def test_a_file_that_is_no_longer_named_goes(host: PretendHost) -> None:
    place(host, {"/etc/calico-lab/kept": "1", "/etc/calico-lab/dropped": "2"})
    place(host, {"/etc/calico-lab/kept": "3"})
    assert host.path("/etc/calico-lab/kept").read_text() == "3\n"
    assert not host.path("/etc/calico-lab/dropped").exists()


def test_removal_takes_the_files_and_the_labs_empty_folders(host: PretendHost) -> None:
    place(host, {"/etc/calico-lab/etcd/etcd.env": "1", "/etc/calico-lab/pki/etcd.key": "2"})
    host.write("/etc/calico-lab/pki/other", "")
    for _ in range(2):
        assert host.run(REMOVE, VARIABLES).returncode == 0
        assert not host.path("/etc/calico-lab/etcd").exists()
        assert [path.name for path in host.path("/etc/calico-lab/pki").iterdir()] == ["other"]
        assert not host.path(RECORD).exists()


PROGRAM = "/usr/local/bin/etcdctl"
OURS = "#!/bin/sh\n. /etc/calico-lab/etcd/etcdctl.env\n"


def test_a_program_may_be_run_and_goes_with_the_others(host: PretendHost) -> None:
    place(host, {"/etc/calico-lab/a": "1", PROGRAM: OURS})
    assert stat.S_IMODE(host.path(PROGRAM).stat().st_mode) == 0o755
    assert stat.S_IMODE(host.path("/etc/calico-lab/a").stat().st_mode) == 0o640
    place(host, {"/etc/calico-lab/a": "1"})
    assert not host.path(PROGRAM).exists()


def test_a_program_of_the_owners_stays_and_is_named(host: PretendHost) -> None:
    host.write(PROGRAM, "the owner's")
    document = render({str(host.path(path)): OURS for path in ("/etc/calico-lab/a", PROGRAM)})
    done = host.run(PLACE, VARIABLES, document)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith(f"a0: {host.path(PROGRAM)} is not the lab's")
    assert host.run(REMOVE, VARIABLES).returncode == 0
    assert host.path(PROGRAM).read_text() == "the owner's"
    assert not host.path("/etc/calico-lab/a").exists()


@pytest.mark.parametrize("removed", ["dropped", "removed"])
def test_a_program_that_the_owner_has_put_in_the_place_of_the_labs_stays(
    host: PretendHost, removed: str
) -> None:
    place(host, {"/etc/calico-lab/a": "1", PROGRAM: OURS})
    host.write(PROGRAM, "the owner's")
    if removed == "dropped":
        place(host, {"/etc/calico-lab/a": "1"})
    else:
        host.run(REMOVE, VARIABLES)
    assert host.path(PROGRAM).read_text() == "the owner's"


def test_a_file_that_two_have_placed_goes_with_the_last(host: PretendHost) -> None:
    others = {**VARIABLES, "NAME": "calico-settings"}
    place(host, {"/etc/calico-lab/a": "1", PROGRAM: OURS})
    document = render({str(host.path(path)): OURS for path in ("/etc/calico-lab/b", PROGRAM)})
    assert host.run(PLACE, others, document).returncode == 0
    place(host, {"/etc/calico-lab/a": "1"})
    assert host.path(PROGRAM).exists()
    place(host, {"/etc/calico-lab/a": "1", PROGRAM: OURS})
    assert host.run(REMOVE, others).returncode == 0
    assert host.path(PROGRAM).exists()
    assert host.run(REMOVE, VARIABLES).returncode == 0
    assert not host.path(PROGRAM).exists()


def test_a_line_that_would_divide_the_files_is_refused() -> None:
    with pytest.raises(ValueError, match="/etc/motd"):
        render({"/etc/motd": f"hello\n{HEADING}/etc/shadow\n"})


@given(st.lists(st.text(), min_size=1), st.lists(st.text(), min_size=1))
def test_different_texts_have_different_digests(some: list[str], others: list[str]) -> None:
    # A zero byte divides them; text for a shell has none.
    some, others = ([text.replace("\0", "") for text in texts] for texts in (some, others))
    assert (digest(some) == digest(others)) == (some == others)
