"""The engine on the controller: every stack needs it, because images are built on it."""

from pathlib import Path

import pytest

from toolchain import engine
from toolchain.errors import ToolchainError
from toolchain.progress import Step


@pytest.mark.parametrize("runs", [True, False])
def test_obtain_starts_an_engine_that_does_not_answer(
    runs: bool, step: Step, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "runs", lambda: runs)
    monkeypatch.setattr(engine, "HERE", tmp_path)
    script = tmp_path / "docker-engine.sh"
    script.write_text(f'#!/bin/sh\necho "$1" >>"{tmp_path}/called"\n')
    script.chmod(0o755)
    engine.obtain(step)
    assert (tmp_path / "called").exists() is not runs
    assert step.result == ("answers" if runs else "started")


def test_obtain_names_a_docker_host_that_does_not_answer(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(ToolchainError, match=r"DOCKER_HOST=tcp://127\.0\.0\.1:1 does not answer"):
        engine.obtain(step)


def test_base_images_without_certificate_authorities_is_an_error(
    step: Step, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.crt")
    with pytest.raises(ToolchainError, match=r"no bundle of certificate authorities at /nowhere\.crt"):
        engine.base_images(step)
