"""A class in Chromium through HTTPS, with the lab's own CA: what its students and its teacher see.

With `CALICO_LAB_SCREENSHOTS`, a folder, the tests also write the pictures of the docs into it.
"""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, WebSocket, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from components.hosts import remote
from tests.live import browser as chrome
from tests.live.browser import LOADS_MS, PHONE, api, choose, expect_jupyterlab, launch, log_in
from tests.live.look import healthy
from tests.live.program import Program, Secret
from tests.live.waiting import eventually
from workspace import outputs as stack
from workspace.outputs import Outputs

ROSTER = "name,memory,enabled\nalice,512,\nbob,384,\ncarol,,false\n"
FIRST = "the-lab-from-inside.ipynb"
UP_SECONDS = 240
CELLS_SECONDS = 90
UPLOAD_SECONDS = 90
MIB = 1 << 20

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Class:
    """A lab with a class, and a browser that trusts it."""

    outputs: Outputs
    tokens: dict[str, Secret]
    browser: Browser

    def url(self, name: str) -> str:
        """The URL of a notebook; ends with a slash."""
        return f"{self.outputs.proxy_url}{self.outputs.notebooks[name]['path']}"

    def host(self, name: str) -> str:
        """The host of a notebook."""
        return str(self.outputs.notebooks[name]["host"])

    def run(self, name: str, script: str) -> None:
        """Run a script on the host of a notebook, with its container as a variable."""
        variables = {"CONTAINER": self.outputs.notebooks[name]["container"]}
        answer = remote.run(self.outputs.ssh[self.host(name)], script, variables, 60)
        assert answer.status == 0, answer


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    expect.set_options(timeout=LOADS_MS)
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def lesson(
    program: Program, playwright: Playwright, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Class]:
    """A class behind HTTPS, with one notebook that is off; afterwards the lab is as before."""
    folder = tmp_path_factory.mktemp("class")
    roster = folder / "students.csv"
    roster.write_text(ROSTER)
    # Saved work is deleted only where the state says that it may be.
    notebooks = {"students": str(roster), "memory": 384, "cpus": 0.5, "keepWork": False}
    try:
        program.up(
            program.changed_config(folder, {"notebooks": notebooks, "proxy.https": "lab"}), seconds=UP_SECONDS
        )
        outputs = healthy(program)
        tokens = {name: Secret(token) for name, token in stack.notebook_tokens(program.stack).items()}
        with chrome.chromium(playwright, tmp_path_factory.mktemp("home"), outputs.proxy_authority) as browser:
            yield Class(outputs, tokens, browser)
    finally:
        program.up(seconds=UP_SECONDS)
    healthy(program)


@pytest.fixture
def page(lesson: Class) -> Iterator[Page]:
    """A page of a browser that has no cookies."""
    with lesson.browser.new_context() as context:
        yield context.new_page()


@contextmanager
def logged_in(lesson: Class, name: str) -> Iterator[Page]:
    """A page of a browser of its own, in which a notebook is open."""
    with lesson.browser.new_context() as context:
        page = context.new_page()
        log_in(page, lesson.url(name), lesson.tokens[name])
        yield page


@pytest.fixture(scope="module")
def alice(lesson: Class) -> Iterator[Page]:
    """Alice's notebook, open."""
    with logged_in(lesson, "alice") as page:
        yield page


def picture(page: Page, name: str) -> None:
    """Write a picture for the docs, where they are asked for."""
    folder = os.environ.get("CALICO_LAB_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png")


@contextmanager
def sized(page: Page, width: int, height: int) -> Iterator[None]:
    """Another size of the page's viewport, in CSS pixels."""
    before = page.viewport_size
    assert before
    page.set_viewport_size({"width": width, "height": height})
    try:
        yield
    finally:
        page.set_viewport_size(before)


def test_browser_without_the_authority(lesson: Class, playwright: Playwright, tmp_path: Path) -> None:
    with chrome.chromium(playwright, tmp_path, None) as browser:
        page = browser.new_page()
        with pytest.raises(PlaywrightError, match="ERR_CERT_AUTHORITY_INVALID"):
            page.goto(lesson.outputs.proxy_url)


def test_http_is_redirected(lesson: Class, page: Page) -> None:
    address = lesson.outputs.proxy_url.removeprefix("https://").partition(":")[0]
    page.goto(f"http://{address}:8080/alice/login")
    assert page.url == f"{lesson.url('alice')}login"
    assert page.evaluate("window.isSecureContext")


def test_start_page_lists_notebooks_with_their_states(lesson: Class, page: Page) -> None:
    page.set_viewport_size({"width": 800, "height": 420})

    def listed() -> None:
        page.goto(lesson.outputs.proxy_url)
        entries = page.get_by_role("listitem")
        expect(entries).to_have_text(["notebook on", "alice on", "bob on", "carol stopped"], timeout=2_000)

    # A notebook that answers late is not on, and the page does not reload.
    eventually(listed, 60, pause=3)
    picture(page, "start-page")


def test_start_page_by_keyboard(lesson: Class, page: Page) -> None:
    page.goto(lesson.outputs.proxy_url)
    link = page.get_by_role("link", name="alice", exact=True)
    for _ in lesson.outputs.notebooks:
        page.keyboard.press("Tab")
        if link.evaluate("link => link === document.activeElement"):
            break
    expect(link).to_be_focused()
    assert link.evaluate("link => getComputedStyle(link).outlineStyle") == "solid", "the focus is visible"
    page.keyboard.press("Enter")
    expect(page.get_by_label("Token", exact=True)).to_be_focused()
    page.keyboard.type(lesson.tokens["alice"])
    page.keyboard.press("Enter")
    expect_jupyterlab(page)


def test_pages_on_a_phone(lesson: Class) -> None:
    with lesson.browser.new_context(viewport=PHONE, is_mobile=True, has_touch=True) as context:
        page = context.new_page()
        for path in ("/", "/alice/login", "/carol/", "/nobody/"):
            page.goto(f"{lesson.outputs.proxy_url}{path}")
            assert not chrome.is_wider_than_the_screen(page), path
        page.goto(lesson.outputs.proxy_url)
        picture(page, "phone")
        page.get_by_role("link", name="alice", exact=True).tap()
        chrome.expect_login_page(page, "alice")


def test_login_wrong_token(lesson: Class, page: Page) -> None:
    page.goto(f"{lesson.url('alice')}lab")
    page.get_by_label("Token", exact=True).fill(lesson.tokens["bob"])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("Invalid credentials")
    chrome.expect_login_page(page, "alice")
    assert chrome.status(page, "/alice/api/contents") == 403


def test_link_of_lab_class_open(page: Page, lesson: Class) -> None:
    printed = subprocess.run(["lab", "class", "open", "alice"], check=True, capture_output=True, text=True)
    page.goto(printed.stdout.strip(), timeout=LOADS_MS)
    expect_jupyterlab(page)
    assert page.url.startswith(f"{lesson.url('alice')}lab")
    assert lesson.tokens["alice"] not in page.url, "the token stays in the browser's history"


def test_first_notebook_runs_to_its_end(alice: Page) -> None:
    expect(alice.locator(".jp-Notebook")).to_be_visible(timeout=LOADS_MS)
    expect(alice.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=LOADS_MS)
    choose(alice, "Run", "Run All Cells")

    def is_done() -> None:
        # Jupyter takes a file that it reads while it is saved for a broken one, and moves it away.
        with alice.expect_response(lambda answer: answer.request.method == "PUT" and FIRST in answer.url):
            choose(alice, "File", "Save Notebook")
        cells = api(alice, f"/alice/api/contents/{FIRST}")["content"]["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        counts = [cell["execution_count"] for cell in code]
        assert counts == list(range(1, len(code) + 1)), counts
        outputs = [output for cell in code for output in cell["outputs"]]
        assert all(cell["outputs"] for cell in code)
        assert {output["output_type"] for output in outputs} == {"stream"}, outputs
        assert {output["name"] for output in outputs} == {"stdout"}, outputs

    eventually(is_done, CELLS_SECONDS, pause=2)
    files = alice.locator('.jp-SideBar [data-id="filebrowser"]')
    files.click()
    with sized(alice, 860, 600):
        eventually(partial(show_routes, alice), 30)
        picture(alice, "first-notebook")
    files.click()


def show_routes(page: Page) -> None:
    """Scroll to the routes; JupyterLab scrolls too, while it renders the cells that become visible."""
    cell = page.locator(".jp-Cell", has=page.get_by_role("heading", name="Route", exact=True))
    cell.evaluate("cell => cell.scrollIntoView()")
    expect(page.get_by_text("lladdr ee:ee:ee:ee:ee:ee")).to_be_in_viewport(timeout=2_000)


def test_terminal_runs_a_command(alice: Page) -> None:
    shown: list[str] = []

    def read(payload: str | bytes) -> None:
        kind, *text = json.loads(payload)
        if kind == "stdout":
            shown.extend(text)

    def listen(socket: WebSocket) -> None:
        if "/terminals/websocket/" in socket.url:
            socket.on("framereceived", read)

    alice.on("websocket", listen)
    launch(alice, "Other", "Terminal")
    terminal = alice.locator(".jp-Terminal .xterm-helper-textarea")
    expect(terminal).to_be_focused(timeout=LOADS_MS)
    alice.keyboard.type("echo $((6 * 7)) on $(hostname)\n")

    def is_printed() -> None:
        alice.wait_for_timeout(100)
        assert "42 on alice\r\n" in "".join(shown), shown

    eventually(is_printed, 20)


def test_kernel_restart_forgets_variables(alice: Page) -> None:
    launch(alice, "Notebook", "Python 3 (ipykernel)")
    cell = alice.locator(".jp-NotebookPanel:visible .jp-CodeCell")

    def run(code: str, shows: str) -> None:
        editor = cell.locator(".cm-content")
        editor.fill(code)

        def is_shown() -> None:
            # JupyterLab ignores it while it connects to the kernel.
            editor.press("Control+Enter")
            expect(cell.locator(".jp-OutputArea-output")).to_contain_text(shows, timeout=5_000)

        eventually(is_shown, 60)

    run("kept = 6 * 7; print(kept)", "42")
    choose(alice, "Kernel", "Restart Kernel…")
    alice.locator(".jp-Dialog .jp-mod-accept").click()
    run("print(kept)", "NameError: name 'kept' is not defined")


def test_file_of_50_mib_goes_up_and_comes_down(alice: Page, tmp_path: Path) -> None:
    sent, received = tmp_path / "measured.bin", tmp_path / "received.bin"
    sent.write_bytes(os.urandom(50 * MIB))
    with alice.expect_file_chooser() as chooser:
        alice.get_by_role("button", name="Upload Files").click()
    chooser.value.set_files(sent)
    # JupyterLab asks about files of more than 15 MB.
    alice.get_by_role("button", name="Upload", exact=True).click()

    def is_there() -> None:
        sizes = {file["name"]: file["size"] for file in api(alice, "/alice/api/contents")["content"]}
        assert sizes.get(sent.name) == 50 * MIB, sizes

    eventually(is_there, UPLOAD_SECONDS)
    alice.locator(".jp-DirListing-item", has_text=sent.name).click(button="right")
    with alice.expect_download() as download:
        alice.locator(".lm-Menu-itemLabel").get_by_text("Download", exact=True).click()
    download.value.save_as(received)
    assert _digest(received) == _digest(sent)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_two_users_at_once(lesson: Class, alice: Page) -> None:
    with logged_in(lesson, "bob") as bob:
        for page, own, other in ((alice, "alice", "bob"), (bob, "bob", "alice")):
            assert chrome.status(page, f"/{own}/api/contents") == 200
            assert chrome.status(page, f"/{other}/api/contents") == 403
            assert chrome.status(page, f"/{other}/api/contents?token={lesson.tokens[own]}") == 403
            tab = page.context.new_page()
            tab.goto(f"{lesson.url(other)}lab?token={lesson.tokens[own]}")
            chrome.expect_login_page(tab, other)
            tab.close()
            assert chrome.status(page, f"/{own}/api/contents") == 200


OPEN_WEBSOCKET = """
url => new Promise(resolve => {
  const socket = new WebSocket(url);
  socket.onopen = () => { socket.close(); resolve(true); };
  socket.onerror = () => resolve(false);
})
"""


@pytest.mark.parametrize(
    ("listed", "path"),
    [
        ("/alice/api/kernels", "/alice/api/kernels/{id}/channels"),
        ("/alice/api/terminals", "/alice/terminals/websocket/{name}"),
    ],
    ids=["kernel", "terminal"],
)
def test_websocket_from_another_origin(lesson: Class, alice: Page, listed: str, path: str) -> None:
    url = lesson.outputs.proxy_url.replace("https", "wss") + path.format(**api(alice, listed)[0])
    # Another port is another origin and the same site, so the browser sends the login's cookie along.
    elsewhere = re.sub(r":\d+$", ":8443", lesson.outputs.proxy_url)
    errors: list[str] = []

    def keep(error: str) -> None:
        errors.append(error)

    assert alice.evaluate(OPEN_WEBSOCKET, url)
    tab = alice.context.new_page()
    tab.on("websocket", lambda socket: socket.on("socketerror", keep))
    # Without it the browser would refuse, because it asks about pages that connect to private addresses.
    tab.context.grant_permissions(["local-network-access"], origin=elsewhere)
    tab.route(f"{elsewhere}/**", lambda route: route.fulfill(content_type="text/html", body="elsewhere"))
    tab.goto(f"{elsewhere}/")
    assert not tab.evaluate(OPEN_WEBSOCKET, url)
    assert errors == ["Error during WebSocket handshake: Unexpected response code: 403"]
    tab.close()


def test_page_of_a_stopped_notebook(lesson: Class, page: Page) -> None:
    answer = page.goto(f"{lesson.url('carol')}lab")
    assert answer
    assert answer.status == 503
    expect(page.get_by_role("heading", name="The notebook carol is stopped")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text(f"on host {lesson.host('carol')}.")
    expect(page.get_by_role("main")).to_contain_text("enabled: true for carol")


def test_page_of_a_dead_notebook(lesson: Class, page: Page) -> None:
    lesson.run("bob", 'docker stop "$CONTAINER"')
    try:
        answer = page.goto(f"{lesson.url('bob')}lab")
        assert answer
        assert answer.status == 503
        expect(page.get_by_role("heading", name="The notebook bob does not answer")).to_be_visible()
        expect(page.get_by_role("main")).to_contain_text(f"the notebook bob on host {lesson.host('bob')}")
        expect(page.get_by_role("main")).to_contain_text("docker logs calico-lab-notebook-bob")
        with lesson.browser.new_context() as context:
            start = context.new_page()
            start.goto(lesson.outputs.proxy_url)
            expect(start.get_by_role("listitem").filter(has_text="bob")).to_have_text("bob does not answer")
    finally:
        lesson.run("bob", 'docker start "$CONTAINER"')
    # It reloads by itself.
    expect(page.get_by_label("Token", exact=True)).to_be_visible(timeout=LOADS_MS)
