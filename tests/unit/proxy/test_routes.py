"""Which requests the proxy passes to which notebook, and what visitors get where there is none."""

import re
import socket
from typing import Any

import pytest
import requests

from tests.unit.proxy.notebooks import Loop, Mode, Notebook, Start
from tests.unit.proxy.running import ADDRESS, TOKEN, Proxy, until


def route(name: str, notebook: Notebook, *, enabled: bool = True, host: str = "a1") -> dict[str, Any]:
    path = "/" if name == "notebook" else f"/{name}/"
    return {"name": name, "path": path, "target": notebook.target, "host": host, "enabled": enabled}


def title(answer: requests.Response) -> str:
    [heading] = re.findall(r"<h1>(.*)</h1>", answer.text)
    assert f"<title>{heading}</title>" in answer.text
    return str(heading)


def served_by(answer: requests.Response, notebook: Notebook | None = None) -> str:
    """The request line that the notebook got."""
    assert answer.status_code == 200
    assert notebook is None or answer.headers["Server"] == str(notebook.port)
    return answer.text.partition("\r\n")[0]


def ask(proxy: Proxy, head: str) -> tuple[socket.socket, str]:
    """Send the head of a request; return the connection, and the first bytes of the answer."""
    connection = socket.create_connection((ADDRESS, proxy.port), timeout=10)
    connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    return connection, connection.recv(65536).decode()


def upgrade(proxy: Proxy, path: str, headers: str = "") -> tuple[socket.socket, str]:
    """Ask for a websocket. A notebook sends the head that it got after its answer."""
    head = f"GET {path} HTTP/1.1\nHost: lab.example:1\nConnection: Upgrade\nUpgrade: websocket{headers}"
    connection, answer = ask(proxy, head)
    if " 101 " in answer and "\r\n\r\nGET " not in answer:
        answer += connection.recv(65536).decode()
    return connection, answer


def is_refused(proxy: Proxy, path: str, status: int) -> bool:
    """Whether a request for a websocket gets a status, and then the end of the connection."""
    connection, answer = upgrade(proxy, path)
    with connection:
        return answer.startswith(f"HTTP/1.1 {status} ") and connection.recv(65536) == b""


def test_original_notebook_gets_every_request(proxy: Proxy, start: Start) -> None:
    notebook = start("on")
    proxy.routes([route("notebook", notebook)])
    for path in ("/", "/lab?x=1", "/alice/lab"):
        assert served_by(proxy.get(path)) == f"GET {path} HTTP/1.1"


def test_routes_go_by_path(proxy: Proxy, start: Start) -> None:
    original, alice, bob = start("on"), start("on"), start("on")
    proxy.routes([route("notebook", original), route("alice", alice), route("bob", bob)])
    for path, notebook in {
        "/alice/lab": alice,
        "/alice": alice,
        "/bob/api": bob,
        "/bobby/": original,
    }.items():
        assert served_by(proxy.get(path), notebook) == f"GET {path} HTTP/1.1"


def test_routes_follow_the_file_without_a_restart(proxy: Proxy, start: Start) -> None:
    pid, alice, bob = proxy.pid, start("on"), start("on")
    proxy.routes([route("alice", alice)])
    assert proxy.get("/bob/").status_code == 404
    proxy.routes([route("bob", bob)])
    assert served_by(proxy.get("/bob/"), bob)
    assert proxy.get("/alice/").status_code == 404
    proxy.routes([{**route("bob", bob), "target": alice.target}])
    assert served_by(proxy.get("/bob/"), alice)
    assert proxy.pid == pid


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "JSON"),
        ("[]", "must have a list"),
        ('{"notebooks": [{"name": "a"}], "startPage": false}', "notebook a: must have"),
        (
            '{"notebooks": [{"name":"a","path":"a","target":"","host":"","enabled":true}],"startPage":false}',
            "notebook a: path a must begin and end with '/'",
        ),
        (
            '{"notebooks":[{"name":"a","path":"/","target":"ftp:","host":"","enabled":true}],"startPage":true}',
            "notebook a: target ftp: must be an http URL",
        ),
        (
            '{"notebooks": [{"name":"a","path":"/","target":"http:a","host":"","enabled":true},'
            '{"name":"b","path":"/","target":"http:a","host":"","enabled":true}],"startPage":false}',
            "notebook b: path / is taken already",
        ),
    ],
)
def test_routes_of_a_broken_file_are_the_former_ones(
    proxy: Proxy, start: Start, text: str, problem: str
) -> None:
    alice = start("on")
    proxy.routes([route("alice", alice)])
    proxy.place("routes/routes.json", text)
    assert problem in proxy.lines_of("routes/routes.json")[-1]
    assert served_by(proxy.get("/alice/"))


def test_routes_of_a_removed_file_are_the_former_ones(proxy: Proxy, start: Start) -> None:
    alice = start("on")
    proxy.routes([route("alice", alice)])
    before = len(proxy.lines_of("routes/routes.json"))
    (proxy.folder / "routes" / "routes.json").unlink()
    until(lambda: len(proxy.lines_of("routes/routes.json")) > before)
    assert served_by(proxy.get("/alice/"))
    proxy.routes([])
    assert proxy.get("/alice/").status_code == 404


def test_start_page_lists_notebooks_with_their_states(proxy: Proxy, start: Start) -> None:
    notebooks = {mode: start(mode) for mode in ("on", "refusing", "silent")}
    proxy.routes(
        [
            route("notebook", notebooks["on"]),
            route("alice", notebooks["refusing"]),
            route("bob", notebooks["silent"]),
            route("carol", notebooks["on"], enabled=False),
        ],
        start_page=True,
    )
    page = proxy.get()
    assert (page.status_code, title(page)) == (200, "Notebooks")
    assert re.findall(r'<li><a href="(.*)">(.*)</a> <span>(.*)</span></li>', page.text) == [
        ("/lab", "notebook", "on"),
        ("/alice/lab", "alice", "does not answer"),
        ("/bob/lab", "bob", "does not answer"),
        ("/carol/lab", "carol", "stopped"),
    ]
    assert "127.0.0.1" not in page.text, "a target is nobody's business"
    assert served_by(proxy.get("/lab")) == "GET /lab HTTP/1.1"


def test_start_page_is_at_the_root_path_alone_and_for_reading_alone(proxy: Proxy, start: Start) -> None:
    notebook = start("on")
    proxy.routes([route("notebook", notebook)], start_page=True)
    assert title(proxy.get("/?token=x")) == "Notebooks"
    head = requests.head(proxy.url, timeout=10)
    assert (head.status_code, head.text) == (200, "")
    assert served_by(requests.post(proxy.url, data="x", timeout=10)) == "POST / HTTP/1.1"


def test_start_page_without_notebooks(proxy: Proxy) -> None:
    proxy.routes([], start_page=True)
    assert "There is no notebook yet." in proxy.get().text


def test_stopped_notebook_has_a_page(proxy: Proxy, start: Start) -> None:
    notebook = start("on")
    proxy.routes([route("notebook", notebook), route("alice", notebook, enabled=False)])
    page = proxy.get("/alice/lab/tree")
    assert (page.status_code, title(page)) == (503, "The notebook alice is stopped")
    assert "<code>a1</code>" in page.text
    assert "enabled: true" in page.text
    assert "http-equiv" not in page.text, "it does not start by itself, so there is nothing to wait for"
    assert is_refused(proxy, "/alice/api/kernels/1/channels", 503)
    assert not notebook.open
    proxy.routes([route("alice", notebook)])
    assert served_by(proxy.get("/alice/lab"))


@pytest.mark.parametrize("mode", ["refusing", "unreachable"])
def test_dead_notebook_has_a_page_that_says_what_to_check(proxy: Proxy, start: Start, mode: Mode) -> None:
    proxy.routes([route("alice", start(mode), host="a0")])
    page = proxy.get("/alice/lab")
    assert (page.status_code, title(page)) == (503, "The notebook alice does not answer")
    for part in ("<code>a0</code>", "calico-lab-notebook-alice", "lab status", "lab class"):
        assert part in page.text
    assert '<meta http-equiv="refresh" content="5">' in page.text
    assert is_refused(proxy, "/alice/api/kernels/1/channels", 503)


def test_dead_original_notebook_is_named_as_its_container(proxy: Proxy, start: Start) -> None:
    proxy.routes([route("notebook", start("refusing"))])
    page = proxy.get("/lab")
    assert title(page) == "The notebook does not answer"
    assert "docker logs calico-lab-notebook<" in page.text


@pytest.mark.parametrize("start_page", [True, False])
def test_unknown_path_has_a_page(proxy: Proxy, start: Start, start_page: bool) -> None:
    proxy.routes([route("alice", start("on"))], start_page=start_page)
    page = proxy.get("/nobody/")
    assert (page.status_code, title(page)) == (404, "There is no notebook at this address")
    assert ('<a href="/">' in page.text) is start_page
    assert is_refused(proxy, "/nobody/", 404)


def test_malformed_path_is_a_bad_request(proxy: Proxy) -> None:
    proxy.routes([])
    for path in ("/%E0%A4%A", "//"):
        connection, answer = ask(proxy, f"GET {path} HTTP/1.1\nHost: lab.example")
        connection.close()
        assert answer.startswith("HTTP/1.1 400 Bad Request"), path


def test_pages_load_nothing_and_run_no_script(proxy: Proxy, start: Start) -> None:
    notebook = start("refusing")
    proxy.routes([route("alice", notebook), route("bob", notebook, enabled=False)], start_page=True)
    for path in ("/", "/alice/", "/bob/", "/nobody/"):
        page = proxy.get(path)
        policy = page.headers["Content-Security-Policy"]
        assert re.fullmatch(
            r"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/=]{44}'; base-uri 'none'; "
            r"form-action 'none'; frame-ancestors 'none'",
            policy,
        )
        assert page.headers["Cache-Control"] == "no-store"
        assert not re.search(r"<script|<img|<link|\son\w+=|\sstyle=|src=|https?://", page.text)
        assert '<html lang="en">' in page.text
        assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page.text


def test_names_are_escaped_in_pages(proxy: Proxy, start: Start) -> None:
    notebook = start("refusing")
    proxy.routes([{**route("a", notebook), "name": "<b>&", "host": "<i>"}], start_page=True)
    for path in ("/", "/a/"):
        assert not re.search(r"<b>|<i>", proxy.get(path).text)


def test_websocket_passes_host_and_origin_unchanged_because_jupyter_compares_them(
    proxy: Proxy, start: Start
) -> None:
    proxy.routes([route("alice", start("on"))])
    connection, answer = upgrade(proxy, "/alice/ws", "\nOrigin: https://elsewhere.example")
    connection.close()
    head = answer.lower()
    assert "\r\nhost: lab.example:1\r\n" in head
    assert "\r\norigin: https://elsewhere.example\r\n" in head
    assert f"\r\nx-forwarded-for: {ADDRESS}\r\n" in head


def test_cookies_of_the_closest_path_are_passed(proxy: Proxy, start: Start) -> None:
    proxy.routes([route("alice", start("on"))])
    cookies = "_xsrf=1|a=; username-a=alice; _xsrf=2; username-a=root; theme=x"
    for connection, answer in (
        ask(proxy, f"GET /alice/ HTTP/1.1\nHost: a\nCookie: {cookies}"),
        upgrade(proxy, "/alice/ws", f"\nCookie: {cookies}"),
    ):
        connection.close()
        assert "\r\ncookie: _xsrf=1|a=; username-a=alice; theme=x\r\n" in answer.lower()


def test_metrics_count_requests(proxy: Proxy, start: Start) -> None:
    proxy.routes([route("alice", start("on"))])
    proxy.get("/alice/")
    proxy.get("/nobody/")
    text = requests.get(f"http://{ADDRESS}:{proxy.ports[3]}/metrics", timeout=10).text
    assert re.search(r'^requests_proxy{status="404"} [1-9]', text, re.MULTILINE)
    assert re.search(r'^requests_proxy{status="200"} [1-9]', text, re.MULTILINE)
    assert "process_open_fds" in text


def test_api_asks_for_its_token(proxy: Proxy) -> None:
    api = f"http://{ADDRESS}:{proxy.ports[1]}/api/routes"
    assert requests.get(api, timeout=10).status_code == 403
    assert requests.get(api, headers={"Authorization": f"token {TOKEN}"}, timeout=10).status_code == 200


def test_connections_of_an_open_websocket_are_both_closed(proxy: Proxy, start: Start, loop: Loop) -> None:
    alice = start("on")
    proxy.routes([route("alice", alice)])
    one, _ = upgrade(proxy, "/alice/ws")
    until(lambda: proxy.connections() == 2)
    one.close()
    until(lambda: proxy.connections() == 0)
    another, _ = upgrade(proxy, "/alice/ws")
    with another:
        loop.run(alice.become("refusing"))
        assert another.recv(65536) == b""
    until(lambda: proxy.connections() == 0)
