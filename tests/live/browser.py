"""Chromium that trusts one more CA, and what a user does in it: log in, use JupyterLab."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Playwright, ViewportSize, expect

CHROMIUM = "/usr/bin/chromium"
LOADS_MS = 60_000
"""JupyterLab's page loads and starts a kernel within this time, also on two busy cores."""
PHONE: ViewportSize = {"width": 360, "height": 640}
"""The viewport of a small phone, in CSS pixels."""


@contextmanager
def chromium(playwright: Playwright, home: Path, authority: str | None) -> Iterator[Browser]:
    """Run Chromium with a home folder of its own. It checks certificates as an operator's browser does.

    Args:
        playwright: What runs it.
        home: The home folder, which is empty.
        authority: The certificate, PEM, of a CA that it trusts beside those that it comes with.
    """
    # Chromium 146 and newer have another default, and use this folder if it exists.
    database = home / ".pki" / "nssdb"
    database.mkdir(parents=True)
    if authority:
        # C: a CA that is trusted to issue certificates of servers, see certutil(1).
        command = ["certutil", "-d", f"sql:{database}", "-A", "-n", "lab", "-t", "C,,"]
        subprocess.run(command, input=authority, text=True, check=True, capture_output=True)
    running = playwright.chromium.launch(
        executable_path=CHROMIUM,
        # Chromium's sandbox does not start for root.
        args=["--no-sandbox"],
        env={**os.environ, "HOME": str(home)},
    )
    try:
        yield running
    finally:
        running.close()


def log_in(page: Page, url: str, token: str) -> None:
    """Log in to a notebook on its login page, and wait for JupyterLab."""
    page.goto(f"{url}lab", timeout=LOADS_MS)
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("button", name="Log in").click()
    expect_jupyterlab(page)


def expect_jupyterlab(page: Page) -> None:
    """Wait for JupyterLab."""
    expect(page.locator("#jp-top-panel")).to_be_visible(timeout=LOADS_MS)


def expect_login_page(page: Page, name: str) -> None:
    """Wait for the login page of a notebook."""
    expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
    expect(page.get_by_label("Token", exact=True)).to_be_visible()


def choose(page: Page, menu: str, entry: str) -> None:
    """Choose an entry of one of JupyterLab's menus."""
    page.locator(".lm-MenuBar-item", has_text=menu).click()
    page.locator(".lm-Menu-itemLabel").get_by_text(entry, exact=True).click()


def launch(page: Page, category: str, card: str) -> None:
    """Open a notebook or a terminal by its card in JupyterLab's launcher."""
    choose(page, "File", "New Launcher")
    launcher = page.locator(".jp-Launcher:visible")
    launcher.locator(f'.jp-LauncherCard[data-category="{category}"]', has_text=card).click()


def status(page: Page, path: str) -> int:
    """The HTTP status that the page gets when it asks for a path of its own origin."""
    answer: int = page.evaluate("path => fetch(path).then(answer => answer.status)", path)
    return answer


def api(page: Page, path: str) -> Any:  # noqa: ANN401 - JSON
    """What Jupyter's API answers for a path, with the page's own login."""
    return page.evaluate("path => fetch(path).then(answer => answer.json())", path)


def is_wider_than_the_screen(page: Page) -> bool:
    """Whether the page can be scrolled sideways."""
    wide: bool = page.evaluate("document.scrollingElement.scrollWidth > document.documentElement.clientWidth")
    return wide
