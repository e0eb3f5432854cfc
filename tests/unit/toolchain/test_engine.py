"""The engine on the controller: there for every stack, since the images are built on it."""

from pathlib import Path

import pytest

from toolchain import engine
from toolchain.errors import ToolchainError
from toolchain.progress import Step


@pytest.mark.parametrize("runs", [True, False])
def test_an_engine_that_does_not_answer_is_started(
    runs: bool, step: Step, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "runs", lambda: runs)
    monkeypatch.setattr(engine, "HERE", tmp_path)
    script = tmp_path / "docker-engine.sh"
    script.write_text(f'#!/bin/sh\necho "$1" >>"{tmp_path}/asked"\n')
    script.chmod(0o755)
    engine.obtain(step)
    assert (tmp_path / "asked").exists() is not runs
    assert step.result == ("answers" if runs else "started")


def test_an_engine_elsewhere_that_does_not_answer_is_named(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(ToolchainError, match=r"DOCKER_HOST=tcp://127\.0\.0\.1:1 does not answer"):
        engine.obtain(step)


def test_a_base_image_without_a_bundle_of_authorities_is_an_error_that_names_it(
    step: Step, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.crt")
    with pytest.raises(ToolchainError, match=r"no bundle of certificate authorities at /nowhere\.crt"):
        engine.base_images(step)
