"""Objects that are embedded in OpenDocument: formulas, charts and files of other programs."""

from __future__ import annotations

import io
import zipfile

import pytest

from ragq.parsing.readers import read
from ragq.parsing.writer import DocumentWriter

NAMES = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for name in "office text table drawing chart".split()
)
START = f'<office:document-content {NAMES} xmlns:draw="d" xmlns:xlink="x">'
END = "</office:document-content>"
FORMULA = (
    '<math xmlns="http://www.w3.org/1998/Math/MathML"><semantics><mrow><mi>E</mi><mo>=</mo><mi>m</mi></mrow>'
    '<annotation encoding="StarMath 5.0">E = m c^2</annotation></semantics></math>'
)
CHART = (
    f"{START}<office:body><office:chart><chart:chart><chart:title><text:p>Ferries by month</text:p></chart:title>"
    "<table:table><table:table-header-rows><table:table-row><table:table-cell/><table:table-cell><text:p>Trips</text:p>"
    "</table:table-cell></table:table-row></table:table-header-rows><table:table-rows><table:table-row><table:table-cell>"
    "<text:p>May</text:p></table:table-cell><table:table-cell><text:p>412</text:p></table:table-cell></table:table-row>"
    f"</table:table-rows></table:table></chart:chart></office:chart></office:body>{END}"
)
SHOWN = {"Object 1/content.xml": FORMULA, "Object 2/content.xml": CHART, "Object 3": "Written by another program."}


def embed(kind: str, objects: dict[str, str]) -> bytes:
    """Make a text or a sheet that says "Before." and shows the objects."""
    addresses = [name.removesuffix("/content.xml") for name in objects]
    frames = "".join(f'<draw:frame><draw:object xlink:href="./{name}"/></draw:frame>' for name in addresses)
    body = f"<text:p>Before.{frames}</text:p>"
    if kind == "spreadsheet":
        cell = "<table:table-row><table:table-cell><text:p>Before.</text:p></table:table-cell></table:table-row>"
        body = f"<table:table><table:shapes>{frames}</table:shapes>{cell}</table:table>"
    content = f"{START}<office:body><office:{kind}>{body}</office:{kind}></office:body>{END}"
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("mimetype", f"application/vnd.oasis.opendocument.{kind}")
        for name, data in {"content.xml": content, **objects}.items():
            archive.writestr(name, data)
    return written.getvalue()


def write(kind: str, objects: dict[str, str]) -> tuple[str, dict[str, object]]:
    document = DocumentWriter(read, max_characters=10_000)
    read(embed(kind, objects), "a", document)
    return document.finish()


def test_formulas_charts_and_files_in_a_text_are_read() -> None:
    text, structure = write("text", SHOWN)
    assert text.split("\n\n") == [
        "Before.",
        "E = m c^2",
        "Ferries by month",
        "May; Trips: 412",
        "Written by another program.",
    ]
    assert structure["warnings"] == []


def test_a_chart_in_a_sheet_gives_its_title_and_not_the_cells_again() -> None:
    text, _ = write("spreadsheet", SHOWN)
    assert text.split("\n\n") == ["Before.", "E = m c^2", "Ferries by month", "Written by another program."]


@pytest.mark.parametrize("kind", ["text", "spreadsheet"])
def test_a_damaged_object_costs_only_itself(kind: str) -> None:
    text, structure = write(kind, {"Object 1/content.xml": "<math", "Object 2/content.xml": FORMULA})
    assert text.split("\n\n") == ["Before.", "E = m c^2"]
    assert "Object 1: " in str(structure["warnings"])
