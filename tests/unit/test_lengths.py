"""Functions and files stay short enough to be read at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "benchmarks", "scripts", "examples")
MOST_FUNCTION_LINES = 40
MOST_FILE_LINES = 400


def list_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (ROOT / folder).rglob("*.py")


def test_no_function_is_longer_than_40_lines() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in list_files(*FOLDERS, "tests")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MOST_FUNCTION_LINES
    ]
    assert found == []


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in list_files(*FOLDERS)}
    assert [str(path) for path, length in lengths.items() if length > MOST_FILE_LINES] == []
