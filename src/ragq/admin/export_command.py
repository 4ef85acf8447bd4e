"""What `ragq tenants export` does: write all that a tenant has into a folder, with checksums."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ragq
from ragq.api_client import ApiClient
from ragq.errors import NotFoundError, PermanentError
from ragq.storage.tenancy.export import PARTS, PartName

FILES: PartName = "files"  # both the list and the folder of the bytes
MANIFEST = "manifest.json"
CHECKSUMS = "SHA256SUMS"
MAX_NAME_BYTES = 150

Report = Callable[[str], None]


async def export_tenant(client: ApiClient, tenant: str, folder: Path, report: Report) -> dict[str, Any]:
    """Write a tenant into a folder, and return the manifest, which is written last.

    Files that an earlier run has written are not fetched again; everything else is.

    Raises:
        PermanentError: The folder has the export of another tenant, or the server refuses.
        TransientError: The server is away; run it again to go on.
    """
    return await _Export(client, tenant, folder, report).run()


class _Export:
    def __init__(self, client: ApiClient, tenant: str, folder: Path, report: Report) -> None:
        self._client, self._tenant, self._folder, self._report = client, tenant, folder, report
        self._sums: dict[str, str] = {}

    async def run(self) -> dict[str, Any]:
        begun = _now()
        self._begin()
        counts = {FILES: await self._write_files()}
        for part in [name for name in PARTS if name != FILES]:
            counts[part] = await self._write_part(part)
        sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(self._sums.items()))
        _write(self._folder / CHECKSUMS, sums.encode())
        manifest = {
            "tenant": self._tenant,
            "ragq": ragq.__version__,
            "begun_at": begun,
            "ended_at": _now(),
            "counts": counts,
            "checksums": {CHECKSUMS: hashlib.sha256(sums.encode()).hexdigest()},
        }
        _write(self._folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
        return manifest

    def _begin(self) -> None:
        """Make the folder; without its manifest nobody takes it for complete."""
        manifest = self._folder / MANIFEST
        if manifest.exists() and (found := _tenant_of(manifest)) != self._tenant:
            raise PermanentError(f"{self._folder} has the export of '{found}': name another folder.")
        manifest.unlink(missing_ok=True)
        (self._folder / FILES).mkdir(parents=True, exist_ok=True)

    async def _write_part(self, part: PartName) -> int:
        path = self._folder / f"{part}.jsonl"
        self._sums[path.name] = await self._fetch(path, "", part=part)
        with path.open("rb") as file:
            count = sum(1 for _ in file)
        self._report(f"{part}: {count}")
        return count

    async def _write_files(self) -> int:
        """Write the list of files and each of them, as it was uploaded."""
        count = await self._write_part(FILES)
        for number, file in enumerate(_read_lines(self._folder / f"{FILES}.jsonl"), 1):
            path = self._folder / FILES / f"{file['id']}.{_safe(file['filename'])}"
            if not (path.exists() and _hash(path) == file["sha256"]):
                try:
                    await self._fetch(path, f"/files/{file['id']}")
                except NotFoundError:  # deleted since the list was made
                    continue
            self._sums[f"{FILES}/{path.name}"] = file["sha256"]
            self._report(f"{number} of {count} files")
        return count

    async def _fetch(self, path: Path, route: str, **parameters: str) -> str:
        """Write a response into a file, which has its name once it is whole; returns its SHA-256."""
        partial, digest = path.with_name(path.name + ".part"), hashlib.sha256()
        with partial.open("wb") as file:
            address = f"/v1/admin/export{route}"
            async for piece in self._client.stream(address, params={"tenant": self._tenant, **parameters}):
                file.write(piece)
                digest.update(piece)
        partial.replace(path)
        return digest.hexdigest()


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read lines of JSON, which end at line feeds alone: a text may have other separators as they are."""
    with path.open("rb") as file:
        yield from map(json.loads, file)


def _tenant_of(manifest: Path) -> str:
    try:
        return str(json.loads(manifest.read_bytes())["tenant"])
    except (ValueError, KeyError, TypeError):
        raise PermanentError(f"{manifest} is of no export: name another folder.") from None


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(content)
    partial.replace(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _safe(filename: str) -> str:
    """A name that stays in its folder on any system; the id before it makes it unique."""
    cleaned = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "_", filename)
    return cleaned.encode()[-MAX_NAME_BYTES:].decode(errors="ignore").rstrip(". ")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
