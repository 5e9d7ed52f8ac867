"""A real browser, and pages in it that fail the test when markup or a script of them goes wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_MS = 20_000


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Run a browser; skip the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("needs chromium, such as apt-get install chromium")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-background-networking"]
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield running
        running.close()


@contextmanager
def open_page(browser: Browser, origin: str) -> Iterator[Page]:
    """Open an empty page; at the end check that no script failed and only `origin` was asked for anything."""
    context = browser.new_context(viewport={"width": 1300, "height": 950}, accept_downloads=True)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("dialog", lambda dialog: (wrong.append(f"markup ran: {dialog.message}"), dialog.dismiss()))
    opened.on("pageerror", lambda error: wrong.append(f"a script failed: {error}"))
    opened.on(
        "request",
        lambda request: (
            wrong.append(request.url) if not request.url.startswith((origin, "blob:", "data:")) else None
        ),
    )
    opened.set_default_timeout(PATIENCE_MS)
    yield opened
    context.close()
    assert wrong == []
