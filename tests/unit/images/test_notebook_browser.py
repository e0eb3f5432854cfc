"""The notebook image in Chromium: the login page, the first login, two notebooks in one browser."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.unit.images import notebooks
from tests.unit.images.notebooks import FIRST, TOKEN, WORK

CHROMIUM = "/usr/bin/chromium"
LOADS_MS = 90_000
CELLS_MS = 120_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=LOADS_MS)
    with sync_playwright() as playwright:
        # Chromium's sandbox does not start for root.
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


def log_in(page: Page, url: str, label: str = "Token", secret: str = TOKEN) -> None:
    """Log in on the login page, and wait for JupyterLab."""
    page.goto(f"{url}/", timeout=LOADS_MS)
    page.get_by_label(label, exact=True).fill(secret)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#jp-top-panel")).to_be_visible(timeout=LOADS_MS)


def tabs(page: Page) -> list[str]:
    return page.locator("#jp-main-dock-panel .lm-TabBar-tabLabel").all_inner_texts()


def test_login_page_says_where_the_token_is_and_refuses_a_wrong_one(
    image: str, tmp_path: Path, browser: Browser
) -> None:
    with notebooks.container(image, tmp_path) as one, browser.new_context() as context:
        one.await_start()
        page = context.new_page()
        page.goto(f"{one.url}/", timeout=LOADS_MS)
        expect(page.locator("body")).to_contain_text("ask your teacher")
        expect(page.locator("body")).to_contain_text("pulumi stack output notebookToken --show-secrets")
        page.get_by_label("Token", exact=True).fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("Invalid credentials")


def test_login_page_of_a_student_names_the_notebook_and_the_teacher(
    image: str, tmp_path: Path, browser: Browser
) -> None:
    variables = {"NOTEBOOK_NAME": "alice", "NOTEBOOK_PATH": "/alice/"}
    with notebooks.container(image, tmp_path, variables=variables) as one, browser.new_context() as context:
        one.await_start()
        page = context.new_page()
        page.goto(f"{one.url}/", timeout=LOADS_MS)
        expect(page.get_by_role("heading", name="alice")).to_be_visible()
        expect(page.locator("body")).to_contain_text("ask your teacher")
        expect(page.locator("body")).not_to_contain_text("pulumi")


@pytest.mark.timeout(600)
def test_first_login_opens_the_first_notebook_which_runs_to_its_end(
    image: str, tmp_path: Path, browser: Browser
) -> None:
    with notebooks.volume() as volume:
        options = [f"--volume={volume}:{WORK}"]
        with notebooks.container(image, tmp_path, options=options) as one, browser.new_context() as context:
            one.await_start()
            page = context.new_page()
            log_in(page, one.url)
            expect(page.locator(".jp-Notebook")).to_be_visible(timeout=LOADS_MS)
            assert tabs(page) == [FIRST]
            expect(page.locator(".jp-DirListing-item")).to_have_text([re.compile(FIRST)])
            assert page.locator(".jp-Dialog, .Toastify__toast").count() == 0
            expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=LOADS_MS)
            page.get_by_text("Run", exact=True).click()
            page.get_by_text("Run All Cells", exact=True).click()
            last = page.locator(".jp-Notebook .jp-CodeCell").last
            expect(last.locator(".jp-OutputArea-output")).to_contain_text("jupyterlab", timeout=CELLS_MS)
            assert page.locator('[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0
            # What is closed stays closed, also in a container that replaces this one.
            page.locator("#jp-main-dock-panel .lm-TabBar-tabCloseIcon").first.click()
            page.get_by_role("button", name="Save", exact=True).click()
            expect(page.get_by_text("Launcher").first).to_be_visible()
            layout = "cat ~/.jupyter/lab/workspaces/*"
            notebooks.await_true(
                lambda: f"notebook:{FIRST}" not in one.run(layout), lambda: one.run(layout), 30
            )
        with notebooks.container(image, tmp_path, options=options) as one, browser.new_context() as context:
            one.await_start()
            page = context.new_page()
            log_in(page, one.url)
            expect(page.get_by_text("Launcher").first).to_be_visible(timeout=LOADS_MS)
            assert FIRST not in tabs(page)


@pytest.mark.timeout(300)
def test_two_notebooks_of_one_origin_in_one_browser(image: str, tmp_path: Path, browser: Browser) -> None:
    # Cookies do not depend on the port, so two published ports are like two paths of one proxy. One has a
    # password, because where JupyterLab has the token, Jupyter asks for no cookie against forged requests.
    alice = {"NOTEBOOK_NAME": "alice", "NOTEBOOK_PATH": "/alice/"}
    with (
        notebooks.container(image, tmp_path) as root,
        notebooks.container(image, tmp_path, variables=alice, password=notebooks.hashed("sesame")) as student,
        browser.new_context() as context,
    ):
        root.await_start()
        student.await_start()
        page = context.new_page()
        log_in(page, student.url, "Password", "sesame")
        notebooks.await_true(lambda: student.log().count("Kernel started") == 1, student.log, 60)
        log_in(page, root.url)
        page.goto("about:blank")
        # The kernel ends, and the browser has two cookies against forged requests when it asks for another.
        notebooks.docker("restart", student.name)
        student.await_start()
        page.goto(f"{student.url}/lab", timeout=LOADS_MS)
        notebooks.await_true(lambda: student.log().count("Kernel started") == 2, student.log, 60)
        # The login at the root is still valid.
        page.goto(f"{root.url}/lab", timeout=LOADS_MS)
        expect(page.locator("#jp-top-panel")).to_be_visible(timeout=LOADS_MS)
