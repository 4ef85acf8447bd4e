"""What the export of a tenant writes, from a server that says what the tests want."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast, get_args

import pytest

from ragq.admin.export_command import export_tenant
from ragq.api_client import ApiClient
from ragq.storage.tenancy.export import PARTS, PartName

CONTENT = b"The lighthouse is 61 metres tall."


class Server:
    """Answers with the files of these names, and with nothing else."""

    def __init__(self, *names: str) -> None:
        sha256 = hashlib.sha256(CONTENT).hexdigest()
        self._files = [
            {"id": f"file-{number}", "filename": name, "sha256": sha256} for number, name in enumerate(names)
        ]

    async def stream(self, path: str, *, params: dict[str, str]) -> AsyncIterator[bytes]:
        if path != "/v1/admin/export":
            yield CONTENT
        elif params["part"] == "files":
            for file in self._files:
                yield json.dumps(file, ensure_ascii=False).encode() + b"\n"


def ignore(_: str) -> None:
    """Show nothing."""


async def export(folder: Path, *names: str) -> dict[str, Any]:
    return await export_tenant(cast("ApiClient", Server(*names)), "acme", folder, ignore)


def parts_in(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.jsonl")}


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\n"])
async def test_a_file_whose_name_has_a_separator_of_lines_is_exported(tmp_path: Path, separator: str) -> None:
    manifest = await export(tmp_path, f"Minutes{separator}of May.md", "plain.md")
    assert manifest["counts"]["files"] == 2
    assert [path.read_bytes() for path in (tmp_path / "files").iterdir()] == [CONTENT, CONTENT]
    assert len((tmp_path / "SHA256SUMS").read_bytes().split(b"\n")) == len(manifest["counts"]) + 2 + 1


async def test_every_part_that_the_server_knows_is_written(tmp_path: Path) -> None:
    assert tuple(PARTS) == get_args(PartName)
    manifest = await export(tmp_path)
    assert set(manifest["counts"]) == set(PARTS)
    assert parts_in(tmp_path) == set(PARTS)
