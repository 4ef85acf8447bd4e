"""Take the pictures in docs/images: the page with an answer from the handbook, and the console. Run it with `make screenshot`."""

from __future__ import annotations

import io
import re
import shutil
import sys
import tempfile
from pathlib import Path

import httpx2
from PIL import Image
from playwright.sync_api import Page, ViewportSize, expect, sync_playwright

from ragq.demo import HANDBOOK
from tests.browser.conftest import BROWSERS
from tests.servers import Ragq

ROOT = Path(__file__).parents[2]
QUESTION = "What happens to a document that kills its worker?"
QUESTIONS = (
    "How is a batch cancelled?",
    "Which settings does a worker need?",
    "How long is a response kept?",
    "What does a drain do?",
    "How are webhooks signed?",
    "When is a job put back?",
)
SIZE = ViewportSize(width=1280, height=720)
COLOURS = 128


def take(url: str, path: str) -> dict[str, bytes]:
    """Ask a service the question and return screenshots of its answer in light and dark, by name."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(url)
        page.get_by_label("Your question").fill(QUESTION)
        page.keyboard.press("Enter")
        expect(page.locator("#state")).to_have_text(re.compile(r"in [\d.]+ s"), timeout=30_000)
        pictures = in_both_themes(page, "page")
        browser.close()
    return pictures


def in_both_themes(page: Page, name: str) -> dict[str, bytes]:
    """Take what a page shows in light and, as NAME-dark, in dark."""
    light = page.screenshot()
    page.emulate_media(color_scheme="dark")
    return {name: light, f"{name}-dark": page.screenshot()}


def take_console(url: str, path: str) -> dict[str, bytes]:
    """Ask several questions, and return screenshots of the console's views, by name."""
    asked = [
        httpx2.post(f"{url}/v1/responses", json={"input": question, "background": True}).raise_for_status().json()["id"]
        for question in QUESTIONS
    ]
    pictures = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(f"{url}/console#jobs?state=finished")
        links = [page.locator(f"#view a[href='#job/{job_id}']") for job_id in asked]
        for link in links:
            expect(link).to_be_visible(timeout=30_000)
        pictures["console-jobs"] = page.screenshot()
        links[0].click()
        expect(page.locator(".stages")).to_be_visible()
        pictures["console-job"] = page.screenshot()
        page.goto(f"{url}/console#queues")
        ended = re.compile(r"Throughput: .*; at most ([2-9]|\d\d) ")
        expect(page.get_by_role("article", name="Questions").get_by_role("img", name=ended)).to_be_visible(
            timeout=30_000
        )
        pictures |= in_both_themes(page, "console")
        page.goto(f"{url}/console#keys")
        page.get_by_role("button", name="New key").click()
        page.get_by_label("Name").fill("Laptop of the archive")
        page.get_by_label("Expires after").select_option("90 days")
        pictures["console-key-dark"] = page.screenshot()
        browser.close()
    return pictures


def main() -> None:
    """Start a service, ingest the handbook, and write the screenshots, or those whose names begin with the argument."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None) or sys.exit(
        "Chromium is missing (on Debian: apt-get install chromium)."
    )
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    with tempfile.TemporaryDirectory(prefix="ragq-screenshot-") as folder:
        service = Ragq(Path(folder) / "data").start()
        try:
            service.run("ingest", str(HANDBOOK)).check_returncode()
            pictures = take(service.url, path) | take_console(service.url, path)
        finally:
            service.stop()
    for name, picture in pictures.items():
        if name.startswith(wanted):
            image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            image.save(ROOT / "docs" / "images" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
