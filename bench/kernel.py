"""Runs a cell of a notebook as a browser does: by token, cookie and websocket.

The messages are those of the Jupyter protocol (jupyter-client.readthedocs.io, "Messaging in Jupyter").
"""

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import requests
import websocket

ANSWER_SECONDS = 120


def login(url: str, token: str, authority: Path | None = None) -> requests.Session:
    """Open a session at a notebook server.

    Args:
        url: The server, or the proxy in front of it.
        token: Its token; it is given once, and a cookie stands for it from then on.
        authority: The file with the certificates that vouch for it, with HTTPS.

    Raises:
        requests.HTTPError: The server refuses, with 403 when the token is wrong.
    """
    session = requests.Session()
    # A bundle that the environment names would replace the one of the session.
    session.trust_env = False
    session.verify = str(authority) if authority else True
    page = session.get(f"{url}/lab", params={"token": token}, timeout=ANSWER_SECONDS)
    page.raise_for_status()
    session.headers["X-XSRFToken"] = session.cookies["_xsrf"]
    # What asks for no page but for data is refused without a login, and not sent to the login page.
    session.get(f"{url}/api/kernels", timeout=ANSWER_SECONDS).raise_for_status()
    return session


def run_cell(url: str, token: str, code: str, authority: Path | None = None, origin: str = "") -> str:
    """Run code in a new kernel and return what it prints.

    Args:
        url: The server, or the proxy in front of it.
        token: Its token.
        code: Python source.
        authority: The file with the certificates that vouch for it, with HTTPS.
        origin: The origin of the page that opens the websocket; empty for the server's own.

    Raises:
        RuntimeError: The code raises, or the kernel does not finish in time.
    """
    session = login(url, token, authority)
    with started(url, session) as kernel:
        return execute(kernel, session, code, origin)


@contextmanager
def started(url: str, session: requests.Session) -> Iterator[str]:
    """Start a kernel, and provide its URL; stop it at the end."""
    answer = session.post(f"{url}/api/kernels", timeout=ANSWER_SECONDS)
    answer.raise_for_status()
    kernel = f"{url}/api/kernels/{answer.json()['id']}"
    try:
        yield kernel
    finally:
        session.delete(kernel, timeout=ANSWER_SECONDS).raise_for_status()


def execute(kernel: str, session: requests.Session, code: str, origin: str = "") -> str:
    """Run code in a kernel and return what it prints.

    Raises:
        RuntimeError: The code raises, or the kernel does not finish in time.
    """
    connection = connect(kernel, session, origin)
    request = uuid.uuid4().hex
    try:
        connection.send(json.dumps(execute_request(request, code)))
        return _output(connection, request)
    finally:
        connection.close()


def connect(kernel: str, session: requests.Session, origin: str = "") -> websocket.WebSocket:
    """Open the websocket of a kernel, with a session's cookies."""
    parts = urlsplit(f"{kernel}/channels")
    return websocket.create_connection(
        urlunsplit(parts._replace(scheme={"http": "ws", "https": "wss"}[parts.scheme])),
        timeout=ANSWER_SECONDS,
        origin=origin or f"{parts.scheme}://{parts.netloc}",
        cookie="; ".join(f"{name}={value}" for name, value in session.cookies.items()),
        sslopt={"ca_certs": session.verify} if isinstance(session.verify, str) else None,
    )


def execute_request(identifier: str, code: str) -> dict[str, object]:
    """The message that makes a kernel run code."""
    return {
        "channel": "shell",
        "header": {
            "msg_id": identifier,
            "msg_type": "execute_request",
            "username": "",
            "session": uuid.uuid4().hex,
            "version": "5.3",
        },
        "parent_header": {},
        "metadata": {},
        "content": {"code": code, "silent": False, "store_history": False, "allow_stdin": False},
    }


def _output(connection: websocket.WebSocket, request: str) -> str:
    printed: list[str] = []
    end = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < end:
        message = json.loads(connection.recv())
        if message["parent_header"].get("msg_id") != request:
            continue
        content = message["content"]
        match message["msg_type"]:
            case "stream":
                printed.append(content["text"])
            case "error":
                raise RuntimeError(f"the cell raised {content['ename']}: {content['evalue']}")
            case "status" if content["execution_state"] == "idle":
                return "".join(printed)
    raise RuntimeError(f"the kernel was not done within {ANSWER_SECONDS} s; it printed {''.join(printed)!r}")
