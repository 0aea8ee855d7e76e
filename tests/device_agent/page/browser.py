"""A person at the page, in a real Chromium without a window."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.device_agent.serving import Served

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here: install the Debian package `chromium`"
)

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

PATIENCE = 60_000
"""Milliseconds that something expected may take: the machine may be busy."""

WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 390, "height": 780}


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with an empty profile of its own."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def visit(
    browser: Browser, agent: Served, address: str | None = None, **how: object
) -> Iterator[Page]:
    """The page as somebody sees it for the first time; nothing may fail in it, nor come from elsewhere.

    Args:
        browser: Whose.
        agent: At whose page.
        address: What is opened; with the token when None.
        how: Of the context, such as ``color_scheme``.
    """
    wrong: list[str] = []
    with browser.new_context(**{"viewport": WIDE, **how}) as context:
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: "Policy" in said.text and wrong.append(said.text))
        page.on("request", lambda sent: _from_elsewhere(sent.url, agent.url, wrong))
        page.goto(address or f"{agent.url}/#token={agent.token}")
        yield page
    assert wrong == []


def _from_elsewhere(url: str, home: str, wrong: list[str]) -> None:
    if not url.startswith((f"{home}/", "file:")):
        wrong.append(f"asked elsewhere: {url}")
