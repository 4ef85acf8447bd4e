"""Take docs/images/page.png: the page with an answer from the handbook. Run it with `make screenshot`."""

from __future__ import annotations

import io
import re
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import ViewportSize, expect, sync_playwright

from ragq.demo import HANDBOOK
from tests.browser.conftest import BROWSERS
from tests.servers import Ragq

ROOT = Path(__file__).parents[2]
QUESTION = "What happens to a document that kills its worker?"
SIZE = ViewportSize(width=1280, height=720)
COLOURS = 128


def take(url: str, path: str) -> bytes:
    """Ask a service the question and return a screenshot of its answer."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(url)
        page.get_by_label("Your question").fill(QUESTION)
        page.keyboard.press("Enter")
        expect(page.locator("#state")).to_have_text(re.compile(r"in [\d.]+ s"), timeout=30_000)
        picture = page.screenshot()
        browser.close()
    return picture


def main() -> None:
    """Start a service, ingest the handbook, and write the screenshot."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None) or sys.exit(
        "Chromium is missing (on Debian: apt-get install chromium)."
    )
    with tempfile.TemporaryDirectory(prefix="ragq-screenshot-") as folder:
        service = Ragq(Path(folder) / "data").start()
        try:
            service.run("ingest", str(HANDBOOK)).check_returncode()
            picture = take(service.url, path)
        finally:
            service.stop()
    image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(ROOT / "docs" / "images" / "page.png", optimize=True)


if __name__ == "__main__":
    main()
