"""Commands on the controller that have to succeed."""

import subprocess

from workspace.outputs import PROJECT


def run(*command: str, stdin: str | None = None, seconds: float = 60) -> str:
    """Run a command in the project's folder, and return what it prints."""
    done = subprocess.run(
        command, cwd=PROJECT, input=stdin, capture_output=True, text=True, check=False, timeout=seconds
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout
