"""Containers of the notebook image, without a lab: as the program runs them, on Docker's default network."""

import fcntl
import hashlib
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from components.services.image import build_arguments

IMAGE = Path(__file__).resolve().parents[3] / "images" / "notebook"
FIRST = "the-lab-from-inside.ipynb"
LABEL = "calico-lab.test"
WORK = "/home/notebook/work"
TOKEN = "0123456789abcdef" * 4
STARTS_S = 60


def docker(*arguments: str, check: bool = True) -> str:
    """Run docker, and return what it prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def hashed(password: str) -> str:
    """A password as Jupyter hashes it, with a fast algorithm."""
    return f"sha256:salt:{hashlib.sha256(f'{password}salt'.encode()).hexdigest()}"


def build() -> str:
    """Build the image as `pulumi up` does, or take it from the cache; return its ID."""
    arguments = build_arguments((IMAGE / "Dockerfile").read_text(), os.environ)
    options = [option for name in arguments for option in ("--build-arg", name)]
    # image.sh holds the same lock, so that simultaneous builds share their layers.
    folder = os.open(IMAGE, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        command = ["docker", "build", "--quiet", *options, str(IMAGE)]
        environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
        return subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()
    finally:
        os.close(folder)


@dataclass(frozen=True)
class Notebook:
    """A running container of the image."""

    name: str
    path: str
    token: str

    @property
    def url(self) -> str:
        """Where it answers on this computer, without a slash at the end."""
        port = docker("port", self.name, "8888/tcp").split()[0].rpartition(":")[2]
        return f"http://127.0.0.1:{port}{self.path}".rstrip("/")

    def run(self, script: str, *, check: bool = True) -> str:
        """Run a script of bash in it, as its user, and return what it prints."""
        return docker("exec", self.name, "bash", "-c", script, check=check)

    def get(self, path: str) -> requests.Response:
        """Ask its API."""
        return self._ask("GET", path)

    def post(self, path: str) -> requests.Response:
        """Create something by its API."""
        return self._ask("POST", path)

    def _ask(self, method: str, path: str) -> requests.Response:
        headers = {"Authorization": f"token {self.token}"}
        return requests.request(method, f"{self.url}/api/{path}", headers=headers, timeout=10)

    def log(self) -> str:
        """What its server has printed."""
        return docker("logs", self.name)

    def healthy(self) -> bool:
        """Whether its health check succeeds."""
        return not subprocess.run(
            ["docker", "exec", self.name, "/usr/local/bin/health"], capture_output=True, check=False
        ).returncode

    def await_start(self) -> None:
        """Wait until its server answers."""
        await_true(self.healthy, self.log, STARTS_S)


def await_true(condition: Callable[[], bool], state: Callable[[], object], seconds: float) -> None:
    """Wait until a condition is true; fail with a description of the state if it does not become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, state()
        time.sleep(0.3)


@contextmanager
def volume() -> Iterator[str]:
    """A volume for a work folder."""
    name = docker("volume", "create", "--label", LABEL).strip()
    try:
        yield name
    finally:
        docker("volume", "rm", "--force", name)


@contextmanager
def container(
    image: str,
    folder: Path,
    *,
    variables: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    password: str | None = None,
) -> Iterator[Notebook]:
    """Run the image as the program does: one secret file, no capabilities.

    Args:
        image: The image.
        folder: For the secret file.
        variables: Its environment.
        options: More options of `docker run`, such as the volume of the work folder.
        password: A hashed password, in the place of the token.
    """
    name = f"calico-lab-test-notebook-{secrets.token_hex(4)}"
    secret = "token" if password is None else "password"
    (folder / name).write_text(f"{TOKEN if password is None else password}\n")
    (folder / name).chmod(0o644)
    settings = [f"--env={key}={value}" for key, value in (variables or {}).items()]
    docker(
        "run",
        "--detach",
        "--init",
        f"--name={name}",
        "--hostname=notebook",
        f"--label={LABEL}",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--publish=127.0.0.1::8888",
        f"--volume={folder / name}:/run/secrets/{secret}:ro",
        *settings,
        *options,
        image,
    )
    try:
        yield Notebook(name, (variables or {}).get("NOTEBOOK_PATH", "/"), TOKEN)
    finally:
        docker("rm", "--force", "--volumes", name)
