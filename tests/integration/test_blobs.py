"""The blob store in a folder."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path

import pytest

from ragq.errors import ConfigurationError, UnavailableError
from ragq.settings import Settings
from ragq.storage.blobs import BlobStore
from tests.servers import environment, run


def settings_of(folder: Path, url: str | None = None) -> Settings:
    return Settings(_env_file=None, data_dir=folder, blob_url=url)


async def test_old_bytes_are_listed_by_name_and_partial_ones_are_not(tmp_path: Path) -> None:
    store = BlobStore(settings_of(tmp_path))
    for name in ("parts/old", "parts/below/old", "parts/young", "elsewhere/old"):
        await store.put(name, io.BytesIO(b"bytes"))
    files = tmp_path / "files"
    (files / "parts" / "cut#1").write_bytes(b"byt")
    for path in files.rglob("*"):
        if path.name in ("old", "cut#1"):
            os.utime(path, (time.time() - 100,) * 2)
    assert sorted(await store.list_older("parts", 60)) == ["parts/below/old", "parts/old"]
    assert sorted(await store.list_older("parts", -60)) == sorted(
        name for name in await store.list_names() if name.startswith("parts/")
    )
    assert await store.list_older("none", 60) == []
    await store.delete_old_parts("parts", 60)
    assert not (files / "parts" / "cut#1").exists()


async def test_bytes_that_are_missing_are_told_from_a_store_that_does_not_answer(tmp_path: Path) -> None:
    store = BlobStore(settings_of(tmp_path))
    await store.delete("unknown")
    assert not await store.exists("unknown")
    with pytest.raises(UnavailableError, match="not in the blob store") as missing:
        [piece async for piece in store.stream("unknown")]
    assert missing.value.code == "blob_missing"
    (tmp_path / "files" / "folder").write_bytes(b"in the way")
    with pytest.raises(UnavailableError) as broken:
        await store.put("folder/name", io.BytesIO(b"bytes"))
    assert broken.value.code == "blobs_unavailable"


@pytest.mark.parametrize("url", [None, "file:{}", "ftp://somewhere"])
def test_a_place_that_cannot_have_files_is_refused_at_the_start(url: str | None, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_bytes(b"")
    with pytest.raises(ConfigurationError, match="RAGQ_BLOB_URL is not a" if url else "RAGQ_BLOB_URL is not set"):
        BlobStore(settings_of(taken, url and url.format(taken)))


def test_the_housekeeping_of_a_folder_does_not_load_the_object_store(tmp_path: Path) -> None:
    code = """
import asyncio, pathlib, sys
from ragq.settings import Settings
from ragq.storage.blobs import BlobStore

async def keep() -> None:
    store = BlobStore(Settings(_env_file=None, data_dir=pathlib.Path(sys.argv[1])))
    await store.list_older("uploads", 60)
    await store.list_unfinished()
    await store.delete_old_parts("uploads", 60)

asyncio.run(keep())
assert "obstore" not in sys.modules
"""
    done = run(sys.executable, "-c", code, str(tmp_path), env=environment())
    assert done.returncode == 0, done.stderr
