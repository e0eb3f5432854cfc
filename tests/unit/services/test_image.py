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
MIRROR = "https://user:password@mirror.example/simple"

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
"build --iidfile")
    env >"$ENGINES/environment"
    cp "${*: -1}/packages.lock" "$ENGINES/packages" 2>/dev/null
    for step in $(seq 30); do echo "Step $step/30 : RUN something"; done
    [ ! -e "$ENGINES/broken" ] || { echo "pip: no matching distribution" >&2; exit 1; }
    printf '%s' "$BUILT" >"$3" ;;
"image inspect") grep -qx "$3" "$ENGINES/$engine" 2>/dev/null ;;
"image save")
    [ ! -e "$ENGINES/unbuilt" ] || { echo "No such image: $3" >&2; exit 1; }
    echo "$3" ;;
"image load")
    [ ! -e "$ENGINES/full" ] || { echo "no space left on device" >&2; exit 1; }
    cat >"$ENGINES/$engine"
    [ ! -e "$ENGINES/containerd" ] || cp "$ENGINES/containerd" "$ENGINES/$engine"
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

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the component on the controller, for the host a1."""
        environment = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "CALLS": f"{self.folder}/calls",
            "ENGINES": str(self.folder),
            "IMAGE": "calico-lab/notebook:latest",
            "CONTEXT": str(self.folder / "context"),
            "BUILD_ARGUMENTS": "PIP_INDEX_URL NO_PROXY",
            "PIP_INDEX_URL": MIRROR,
            "NO_PROXY": "localhost",
            "BUILT": IMAGE_ID,
            "TMPDIR": str(self.folder / "logs"),
            "HOST": "a1",
            "DESTINATION": "ssh://root@a1",
            "SSH_CONFIG": "config",
            "PULUMI_COMMAND_STDOUT": IMAGE_ID,
            **variables,
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
    for folder in ("bin", "context", "logs"):
        (tmp_path / folder).mkdir()
    for program in ("docker", "ssh"):
        path = tmp_path / "bin" / program
        path.write_text(ENGINE)
        path.chmod(0o755)
    return Engines(tmp_path)


def steps(log: str) -> list[str]:
    return [line for line in log.splitlines() if line.startswith("calico-lab/notebook:latest: Step ")]


def test_image_is_built_and_loaded_where_a_host_lacks_it(engines: Engines) -> None:
    done = engines.run("image.sh")
    assert (done.returncode, done.stdout) == (0, f"{IMAGE_ID}\n")
    assert done.stderr.splitlines() == steps(done.stderr), "what a build prints is not all shown"
    assert len(steps(done.stderr)) == 30
    assert (engines.folder / "a1").read_text() == f"{IMAGE_ID}\n"
    assert engines.calls()[-1] == f"a1: docker image tag {IMAGE_ID} calico-lab/notebook:latest"
    assert list((engines.folder / "logs").iterdir()) == []


def test_image_build_gets_its_arguments_by_name_because_a_value_may_be_a_password(engines: Engines) -> None:
    engines.run("image.sh")
    (build,) = [call for call in engines.calls() if " build " in call]
    assert build.startswith("controller: docker build --iidfile ")
    assert build.endswith(
        " --tag calico-lab/notebook:latest --build-arg PIP_INDEX_URL --build-arg NO_PROXY"
        f" {engines.folder}/context"
    )
    assert not any("password" in call for call in engines.calls())
    environment = (engines.folder / "environment").read_text().splitlines()
    assert {f"PIP_INDEX_URL={MIRROR}", "NO_PROXY=localhost", "DOCKER_BUILDKIT=0"} <= set(environment)


def test_image_build_without_arguments(engines: Engines) -> None:
    assert engines.run("image.sh", BUILD_ARGUMENTS="").returncode == 0
    assert "--build-arg" not in " ".join(engines.calls())


def test_image_build_with_packages_in_the_place_of_the_folders_own(engines: Engines) -> None:
    own, given = engines.folder / "context" / "packages.lock", engines.folder / "class.lock"
    own.write_text("own\n")
    given.write_text("given\n")
    assert engines.run("image.sh", PACKAGES=str(given)).returncode == 0
    assert (engines.folder / "packages").read_text() == "given\n"
    assert own.read_text() == "own\n"
    assert list((engines.folder / "logs").iterdir()) == []
    engines.run("image.sh")
    assert (engines.folder / "packages").read_text() == "own\n"


def test_image_build_that_fails_shows_its_last_lines_and_the_next_step(engines: Engines) -> None:
    (engines.folder / "broken").touch()
    done = engines.run("image.sh")
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert lines[-2] == "pip: no matching distribution"
    assert lines[-3] == "Step 30/30 : RUN something"
    assert lines[-1].startswith(
        f"the image calico-lab/notebook:latest could not be built from {engines.folder}"
    )
    assert lines[-1].endswith("then run 'pulumi up' again")
    assert all(call.startswith("controller: docker build ") for call in engines.calls())
    assert list((engines.folder / "logs").iterdir()) == []


def test_image_is_asked_for_by_its_id_because_another_lab_may_have_taken_its_name(engines: Engines) -> None:
    engines.run("image.sh")
    assert f"a1: docker image inspect {IMAGE_ID}" in engines.calls()
    assert f"controller: docker image save {IMAGE_ID}" in engines.calls()


def test_image_is_loaded_where_another_has_its_name(engines: Engines) -> None:
    engines.hold("a1", OTHER_ID)
    assert engines.run("image.sh").stdout == f"{IMAGE_ID}\n"
    assert (engines.folder / "a1").read_text() == f"{IMAGE_ID}\n"


def test_image_has_the_id_that_the_engine_of_the_host_gives_it(engines: Engines) -> None:
    (engines.folder / "containerd").write_text(OTHER_ID)
    assert engines.run("image.sh").stdout == f"{OTHER_ID}\n"
    assert engines.calls()[-1] == f"a1: docker image tag {OTHER_ID} calico-lab/notebook:latest"


def test_image_that_a_host_has_is_not_sent_again(engines: Engines) -> None:
    engines.hold("a1", IMAGE_ID)
    done = engines.run("image.sh")
    assert done.stdout == f"{IMAGE_ID}\n"
    assert [call for call in engines.calls() if "save" in call or "load" in call] == []


def test_image_that_cannot_be_loaded_names_host_cause_and_next_step(engines: Engines) -> None:
    (engines.folder / "full").touch()
    done = engines.run("image.sh")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no space left on device" in done.stderr
    assert "a1: the image calico-lab/notebook:latest could not be loaded from the controller" in done.stderr
    assert "ssh -F config a1 df -h" in done.stderr


def test_image_that_cannot_be_saved_is_not_loaded(engines: Engines) -> None:
    (engines.folder / "unbuilt").touch()
    done = engines.run("image.sh")
    assert (done.returncode, done.stdout) == (1, "")
    assert "No such image" in done.stderr


def test_remove_image(engines: Engines) -> None:
    engines.hold("a1", IMAGE_ID)
    assert engines.run("remove-image.sh").returncode == 0
    assert not (engines.folder / "a1").exists()
    again = engines.run("remove-image.sh")
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
def test_build_arguments_proxies_and_registries(
    dockerfile: str, environment: dict[str, str], arguments: dict[str, str]
) -> None:
    assert build_arguments(dockerfile, environment) == arguments
