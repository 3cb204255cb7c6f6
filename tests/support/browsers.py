"""Debian's Chromium, driven by Playwright: nothing is downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


def why_not() -> str:
    """Why no browser can be opened here; "" if one can."""
    if find_spec("playwright") is None:
        return "the package playwright is not installed (pip install 'vaegan-search[dev]')"
    return "" if chromium() else "there is no Chromium here (apt-get install chromium)"


@contextmanager
def open_browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()
