"""What a build gets from the operator's environment, and how an image travels."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

import components.services.image
from components.services.image import build_arguments

HERE = Path(components.services.image.__file__).with_name("scripts")
IMAGE_ID = "sha256:" + "a" * 64
OTHER_ID = "sha256:" + "b" * 64

# Stands for both programs: writes down how it is called, and holds one image in a file per engine.
ENGINE = """#!/bin/bash
set -u
engine=controller
if [ "${0##*/}" = ssh ]; then
    [ "$1 $2" = "-F config" ] || exit 255
    engine=${3#ssh://root@}
    shift 4
fi
echo "$engine: docker $*" >>"$CALLS"
case "$1 $2" in
"image inspect") grep -qx "$3" "$ENGINES/$engine" 2>/dev/null ;;
"image save")
    [ ! -e "$ENGINES/unbuilt" ] || { echo "No such image: $3" >&2; exit 1; }
    echo "$3" ;;
"image load")
    [ ! -e "$ENGINES/full" ] || { echo "no space left on device" >&2; exit 1; }
    cat >"$ENGINES/$engine"
    echo "Loaded image ID: $(cat "$ENGINES/$engine")" ;;
"image rm")
    [ -e "$ENGINES/$engine" ] || { echo "No such image: $3" >&2; exit 1; }
    rm "$ENGINES/$engine" ;;
esac
"""


@dataclass(frozen=True)
class Engines:
    """The Docker engines of a controller and some hosts."""

    folder: Path

    def hold(self, engine: str, image_id: str) -> None:
        """Let an engine have the image, by this id."""
        (self.folder / engine).write_text(f"{image_id}\n")

    def calls(self) -> list[str]:
        """What the engines have been asked, in order."""
        calls = self.folder / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the component on the controller, for the host a1."""
        environment = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "CALLS": f"{self.folder}/calls",
            "ENGINES": str(self.folder),
            "IMAGE": "calico-lab/notebook:latest",
            "IMAGE_ID": IMAGE_ID,
            "HOST": "a1",
            "DESTINATION": "ssh://root@a1",
            "SSH_CONFIG": "config",
            "PULUMI_COMMAND_STDOUT": IMAGE_ID,
        }
        return subprocess.run(
            ["/bin/bash", "-c", (HERE / script).read_text()],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def engines(tmp_path: Path) -> Engines:
    (tmp_path / "bin").mkdir()
    for program in ("docker", "ssh"):
        path = tmp_path / "bin" / program
        path.write_text(ENGINE)
        path.chmod(0o755)
    return Engines(tmp_path)


def test_an_image_that_a_host_lacks_is_brought_there(engines: Engines) -> None:
    done = engines.run("transfer.sh")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{IMAGE_ID}\n", "")
    assert (engines.folder / "a1").read_text() == f"{IMAGE_ID}\n"
    assert engines.calls()[-1] == f"a1: docker image tag {IMAGE_ID} calico-lab/notebook:latest"


def test_an_image_is_asked_for_by_its_id_because_another_lab_may_have_taken_its_name(
    engines: Engines,
) -> None:
    engines.run("transfer.sh")
    assert f"controller: docker image save {IMAGE_ID}" in engines.calls()


def test_an_image_that_another_is_named_like_is_brought_all_the_same(engines: Engines) -> None:
    engines.hold("a1", OTHER_ID)
    assert engines.run("transfer.sh").stdout == f"{IMAGE_ID}\n"
    assert (engines.folder / "a1").read_text() == f"{IMAGE_ID}\n"


def test_an_image_that_a_host_has_stays_where_it_is(engines: Engines) -> None:
    engines.hold("a1", IMAGE_ID)
    done = engines.run("transfer.sh")
    assert done.stdout == f"{IMAGE_ID}\n"
    assert [call for call in engines.calls() if "save" in call or "load" in call] == []


def test_a_failed_transfer_names_host_cause_and_next_step(engines: Engines) -> None:
    (engines.folder / "full").touch()
    done = engines.run("transfer.sh")
    assert done.returncode == 1
    assert "no space left on device" in done.stderr
    assert "a1: could not bring the image calico-lab/notebook:latest there from the controller" in done.stderr
    assert "ssh -F config a1 df -h" in done.stderr


def test_an_image_that_cannot_be_read_is_a_failed_transfer(engines: Engines) -> None:
    (engines.folder / "unbuilt").touch()
    done = engines.run("transfer.sh")
    assert done.returncode == 1
    assert "No such image" in done.stderr


def test_an_image_is_removed_and_one_that_is_gone_is_no_error(engines: Engines) -> None:
    engines.hold("a1", IMAGE_ID)
    assert engines.run("remove.sh").returncode == 0
    assert not (engines.folder / "a1").exists()
    again = engines.run("remove.sh")
    assert again.returncode == 0
    assert "No such image" in again.stderr


@pytest.mark.parametrize(
    ("dockerfile", "environment", "arguments"),
    [
        ("ARG PIP_INDEX_URL\n", {"PIP_INDEX_URL": "x"}, {"PIP_INDEX_URL": "x"}),
        ("FROM scratch\n", {"PIP_INDEX_URL": "x"}, {}),
        ("ARG PIP_INDEX_URL\n", {}, {}),
        ("ARG PIP_INDEX_URL\n", {"PIP_INDEX_URL": ""}, {}),
        ("FROM scratch\n", {"HTTPS_PROXY": "p", "NO_PROXY": "n"}, {"HTTPS_PROXY": "p", "NO_PROXY": "n"}),
        ("ARG BASE=x\nARG HOME\n", {"BASE": "y", "HOME": "/root"}, {}),
    ],
)
def test_a_build_gets_proxies_and_the_registries_that_it_declares(
    dockerfile: str, environment: dict[str, str], arguments: dict[str, str]
) -> None:
    assert build_arguments(dockerfile, environment) == arguments
