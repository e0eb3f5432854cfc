"""The engine on the controller: needed for machines made here, not for existing ones."""

from pathlib import Path

import pytest

from toolchain import engine
from toolchain.errors import ToolchainError
from toolchain.progress import Step


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("config:\n  lab:hosts:\n    provider: docker\n", True),
        ("config:\n  lab:hosts:\n    members: {}\n", True),
        ("config:\n  lab:hosts:\n    provider: existing\n", False),
        ('config:\n  lab:hosts:\n    provider: "existing"\n', False),
        ("config:\n  lab:hosts:\n    # provider: existing\n    provider: docker\n", True),
    ],
)
def test_an_engine_is_needed_unless_the_machines_exist(text: str, needed: bool, tmp_path: Path) -> None:
    (tmp_path / "Pulumi.lab.yaml").write_text(text)
    assert engine.needed(tmp_path / "Pulumi.lab.yaml") is needed


def test_without_need_a_missing_engine_is_no_error(
    tmp_path: Path, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "runs", lambda: False)
    (tmp_path / "Pulumi.lab.yaml").write_text("provider: existing\n")
    assert not engine.obtain(step, tmp_path / "Pulumi.lab.yaml")


def test_an_engine_elsewhere_that_does_not_answer_is_named(
    tmp_path: Path, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    (tmp_path / "Pulumi.lab.yaml").write_text("provider: docker\n")
    with pytest.raises(ToolchainError, match=r"DOCKER_HOST=tcp://127\.0\.0\.1:1 does not answer"):
        engine.obtain(step, tmp_path / "Pulumi.lab.yaml")


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
