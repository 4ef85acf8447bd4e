"""Data folders of other versions: one of release 0.1 goes on, and what cannot be used is refused."""

from __future__ import annotations

import json
import tarfile
import time
from pathlib import Path

import httpx2
import psycopg
import pytest
import redis

import ragq
from ragq.embedded.services import EmbeddedServices, read_services
from ragq.embedded.stamp import STAMP, check_folder
from ragq.errors import ConfigurationError
from tests.servers import Ragq, wait_until

RELEASE = Path(__file__).parents[1] / "data" / "release-0.1" / "data.tar.gz"


@pytest.fixture
def old_folder(tmp_path: Path) -> Path:
    """A data folder as release 0.1 left it, an hour ago at most: its jobs still have time."""
    folder = tmp_path / "data"
    with tarfile.open(RELEASE) as tar:
        tar.extractall(folder, filter="data")
    with EmbeddedServices(folder, valkey=True, postgres=True):
        services = read_services(folder)
        with psycopg.connect(services.database_url or "", autocommit=True) as connection:
            connection.execute((folder / "database.sql").read_bytes())
        with redis.Redis.from_url(services.valkey_url or "", decode_responses=True) as valkey:
            deadline = int(time.time() * 1000) + 600_000
            for job_id in valkey.zrange("ragq:deadlines", 0, -1):
                valkey.zadd("ragq:deadlines", {job_id: deadline})
                valkey.hset(f"ragq:job:{job_id}", "deadline_ms", deadline)
    (folder / STAMP).unlink()
    return folder


def test_a_data_folder_of_release_0_1_goes_on(old_folder: Path) -> None:
    known = json.loads((old_folder / "known.json").read_text())
    service = Ragq(old_folder).start()
    try:
        with httpx2.Client(base_url=service.url, timeout=30) as http:
            answered = http.get(f"/v1/responses/{known['answered']}").json()
            assert answered["output"][-1]["content"][0]["text"] == known["answer"]
            files = f"/v1/vector_stores/{known['store']}/files"
            wait_until(lambda: http.get(f"{files}/{known['file']}").json()["status"] == "completed", seconds=30)
            pending = f"/v1/responses/{known['pending']}"
            wait_until(lambda: http.get(pending).json()["status"] == "completed", seconds=30)
            assert http.get(pending).json()["output"][-1]["content"][0]["text"] == "The ferry leaves at noon."
            body = {"query": "When does the museum open?"}
            found = http.post(f"/v1/vector_stores/{known['store']}/search", json=body).json()["data"]
            assert found[0]["filename"] == "museum.md"
        assert json.loads((old_folder / STAMP).read_text())["ragq"] == ragq.__version__
    finally:
        service.end()


def test_a_folder_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / STAMP).write_text('{"ragq": "97.2.1"}')
    done = Ragq(tmp_path).run("up", "--port", "0")
    assert done.returncode == 1
    assert "was used by ragq 97.2.1" in done.stderr
    assert "Install ragq 97.2.1 or newer" in done.stderr
    assert not (tmp_path / "postgresql").exists()


def test_a_folder_of_another_patch_release_is_used(tmp_path: Path) -> None:
    major, minor, _ = ragq.__version__.split(".")
    (tmp_path / STAMP).write_text(json.dumps({"ragq": f"{major}.{minor}.999"}))
    check_folder(tmp_path)
    assert json.loads((tmp_path / STAMP).read_text())["ragq"] == ragq.__version__


def test_a_cluster_of_another_postgresql_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgresql" / "cluster").mkdir(parents=True)
    (tmp_path / "postgresql" / "cluster" / "PG_VERSION").write_text("17\n")
    with pytest.raises(ConfigurationError, match="is of PostgreSQL 17, and this ragq brings 18"):
        check_folder(tmp_path)
    assert not (tmp_path / STAMP).exists()


def test_a_stamp_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / STAMP).write_text("{")
    with pytest.raises(ConfigurationError, match="is damaged"):
        check_folder(tmp_path)
