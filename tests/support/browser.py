"""Pages in headless Chromium, and what they ask for and complain of."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Opened:
    """A page in the browser; `complaints` are what its console shows, `asked` what it requests."""

    def __init__(self, page):
        self.page = page
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, path: Path) -> None:
        """Load a page and wait until its completions are listed, if it has some."""
        self.page.goto(path.as_uri())
        if self.page.locator("#list").count():
            self.page.locator("#list li").first.wait_for()


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """The machine's Chromium; tests that need it are skipped where there is none.

    It ends with the module: tests of the judge count the processes below theirs.
    """
    playwright = pytest.importorskip("playwright.sync_api")
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium here (apt-get install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium) -> Iterator[Opened]:
    """An empty page of 1,200 pixels, light."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900}, color_scheme="light")
    context.set_default_timeout(20_000)
    yield Opened(context.new_page())
    context.close()
