"""Make src/ragq/scan/notice.pdf, which `ragq demo` reads by OCR: a page as a scanner delivers it, grey and a little askew.

Run it by hand after changing the text: letters are drawn a little differently by each version of Pillow.
"""

from __future__ import annotations

import io
import random
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFont
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

TARGET = Path(__file__).resolve().parents[1] / "src" / "ragq" / "scan" / "notice.pdf"
WIDTH, HEIGHT = 1240, 1754  # A4 at 150 dots per inch
DEGREES_ASKEW = 1.2
LINES = """Notice for the machine room

The spare disk is in the grey cabinet, on the second
shelf from the top, behind the box of network cables.

Before the disk of a server is changed, stop the
workers and wait until nothing is in flight. The
questions that are asked meanwhile stay in the queue.

The air conditioning is tested on the first Monday
of each month. The alarm then sounds for a minute.
""".splitlines()


def draw() -> Image.Image:
    """Draw the page."""
    page = Image.new("L", (WIDTH, HEIGHT), 255)
    drawing = ImageDraw.Draw(page)
    for number, line in enumerate(LINES):
        drawing.text((150, 200 + 62 * number), line, fill=40, font=ImageFont.load_default(44 if number == 0 else 34))
    page = page.rotate(DEGREES_ASKEW, resample=Image.Resampling.BICUBIC, fillcolor=255)
    specks = Image.new("L", page.size, 255)
    chance = random.Random(7)
    for _ in range(400):
        specks.putpixel((chance.randrange(WIDTH), chance.randrange(HEIGHT)), chance.randrange(90, 200))
    return ImageChops.darker(page, specks).point(lambda value: min(240, value // 16 * 16))


def main() -> None:
    """Write the PDF."""
    picture = io.BytesIO()
    draw().save(picture, "PNG", optimize=True)
    TARGET.parent.mkdir(exist_ok=True)
    canvas = Canvas(str(TARGET), pagesize=(595, 842), pageCompression=1, invariant=1)
    canvas.drawImage(ImageReader(picture), 0, 0, 595, 842)
    canvas.setTitle("Notice for the machine room")
    canvas.save()
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
