"""The gate in front of a service: it opens when the image's health check passes, and says why it does not."""

import os
import subprocess
from pathlib import Path

import pytest

from components.services import service

SCRIPT = Path(service.__file__).with_name("scripts") / "ready.sh"

# Fails the health check as often as the file says, and then passes it.
DOCKER = """#!/bin/bash
case "$1 $2" in
"container inspect")
    case $4 in *Healthcheck*) printf 'health\\n--fast\\n\\n' ;; *) echo "running, exit code 0" ;; esac ;;
"container exec")
    [ "$3 $4 $5" = "calico-lab-notebook health --fast" ] || exit 9
    left=$(cat "$FAILURES")
    [ "$left" -gt 0 ] || exit 0
    echo $((left - 1)) >"$FAILURES"
    echo "connection refused"
    exit 1 ;;
"container logs") echo "the token's file cannot be read" ;;
esac
"""


def wait(folder: Path, failures: int, seconds: int) -> subprocess.CompletedProcess[str]:
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    (folder / "failures").write_text(str(failures))
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "FAILURES": f"{folder}/failures",
        "HOST": "a1",
        "CONTAINER": "calico-lab-notebook",
        "SECONDS_ALLOWED": str(seconds),
    }
    return subprocess.run(
        ["/bin/bash", str(SCRIPT)], env=environment, capture_output=True, text=True, check=False, timeout=20
    )


@pytest.mark.parametrize("failures", [0, 3])
def test_ready_script_passes(tmp_path: Path, failures: int) -> None:
    done = wait(tmp_path, failures, seconds=10)
    assert (done.returncode, done.stderr) == (0, "")


def test_ready_script_fails(tmp_path: Path) -> None:
    done = wait(tmp_path, failures=1000, seconds=1)
    assert done.returncode == 1
    assert "a1: container calico-lab-notebook (running, exit code 0) is not healthy after 1 s" in done.stderr
    assert "connection refused" in done.stderr
    assert "the token's file cannot be read" in done.stderr
    assert "'docker container inspect calico-lab-notebook' on a1" in done.stderr
