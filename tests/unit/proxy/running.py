"""The proxy's image in a container on the controller's engine, on the host network as in the lab."""

import json
import os
import re
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from components.services.image import build_arguments
from components.services.proxy import USER

IMAGE = Path(__file__).resolve().parents[3] / "images" / "proxy"
TOKEN = "the-apis-token"
ADDRESS = "127.0.0.1"


def build() -> str:
    """Build the image, and return its ID."""
    arguments = build_arguments((IMAGE / "Dockerfile").read_text(), os.environ)
    options = [option for name in arguments for option in ("--build-arg", name)]
    # As image.sh does.
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    return docker("build", "--quiet", *options, str(IMAGE), env=environment).strip()


def docker(*arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Run docker, and return what it prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise RuntimeError(f"docker {arguments[0]}: {done.stderr}")
    return done.stdout


def free_ports(count: int) -> list[int]:
    """TCP ports of the loopback interface that are free."""
    taken = [socket.create_server((ADDRESS, 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


def until(condition: Callable[[], Any], seconds: float = 90) -> Any:  # noqa: ANN401 - what the condition returns
    """Wait until a condition holds, and return its value.

    Raises:
        AssertionError: It does not hold in time.
    """
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)
    return value


@dataclass
class Proxy:
    """A running proxy."""

    folder: Path
    """Its files on the controller, as they are on a host in `/etc/calico-lab`."""
    image: str
    https: str = "none"
    metrics: bool = False
    name: str = field(default_factory=lambda: f"calico-lab-proxy-test-{uuid.uuid4().hex[:8]}")
    ports: list[int] = field(default_factory=lambda: free_ports(4))

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.ports[0]

    @property
    def url(self) -> str:
        """Its URL."""
        return f"{'http' if self.https == 'none' else 'https'}://{ADDRESS}:{self.port}"

    def get(self, path: str = "/", **options: Any) -> requests.Response:  # noqa: ANN401 - those of requests
        """Send a GET request."""
        return requests.get(f"{self.url}{path}", timeout=30, **options)

    def routes(self, notebooks: Sequence[Mapping[str, Any]], *, start_page: bool = False) -> None:
        """Place routes.json as `place-files.sh` does, and wait until the proxy has read it."""
        self.place("routes/routes.json", json.dumps({"notebooks": notebooks, "startPage": start_page}))

    def place(self, file: str, text: str) -> None:
        """Replace one of its files by renaming, and wait until the proxy has read it."""
        (self.folder / file).parent.mkdir(exist_ok=True)
        placed = self.folder / file
        if placed.exists() and placed.read_text() == text:
            return
        draft = self.folder / f"{file}.draft"
        draft.write_text(text)
        draft.chmod(0o600)
        os.chown(draft, USER, USER)
        before = len(self.lines_of(file))
        draft.rename(placed)
        if self.pid:
            until(lambda: len(self.lines_of(file)) > before)

    def lines_of(self, file: str) -> list[str]:
        """What the proxy has logged about a file."""
        return re.findall(rf"/run/{re.escape(file)}: .*", self.log) if self.pid else []

    @property
    def log(self) -> str:
        """What it has logged."""
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    @property
    def pid(self) -> int:
        """The process ID of Node; 0 if it does not run."""
        done = subprocess.run(
            ["docker", "container", "inspect", "--format", "{{.State.Pid}}", self.name],
            capture_output=True,
            text=True,
            check=False,
        )
        return int(done.stdout.strip() or 0)

    def connections(self) -> int:
        """The number of its connections."""
        descriptors = Path(f"/proc/{self.pid}/fd").iterdir()
        sockets = sum(str(one.readlink()).startswith("socket:") for one in descriptors if one.is_symlink())
        listening = 2 + self.metrics + (self.https != "none")
        return sockets - listening

    def memory(self) -> int:
        """Its resident memory in MiB."""
        fields = Path(f"/proc/{self.pid}/status").read_text()
        return int(fields.partition("VmRSS:")[2].split()[0]) // 1024

    def is_healthy(self) -> bool:
        """Whether the image's health check succeeds."""
        command = ["docker", "exec", self.name, "/usr/bin/node", "health.mjs"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    @contextmanager
    def started(self) -> Iterator["Proxy"]:
        """Run it, and remove it afterwards."""
        self.place("api-token", TOKEN)
        port, api, plain, metrics = self.ports
        settings = {
            "PROXY_ADDRESS": ADDRESS,
            "PROXY_PORT": port,
            "PROXY_API_PORT": api,
            "PROXY_HTTPS": self.https,
            "PROXY_HTTP_PORT": plain,
            "PROXY_METRICS_PORT": metrics if self.metrics else "",
        }
        mounts = {"api-token": "/run/secrets/api-token", "routes": "/run/routes", "tls": "/run/tls"}
        docker(
            *("run", "--detach", "--name", self.name, "--label", "calico-lab.test", "--network", "host"),
            *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "256m"),
            *(f"--env={key}={value}" for key, value in settings.items()),
            *(
                f"--volume={self.folder / file}:{path}:ro"
                for file, path in mounts.items()
                if (self.folder / file).exists()
            ),
            self.image,
        )
        try:
            until(self.is_healthy)
            yield self
        finally:
            docker("rm", "--force", self.name)
