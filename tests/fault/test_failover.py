"""Short forms of the drills in benchmarks/failover: a machine with a primary is lost for good, under load."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.failover import postgres, valkey
from tests.fault.test_drills import assert_passed, say


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="ragq-ha-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


async def test_a_lost_primary_of_valkey_loses_no_question_and_doubles_no_answer(folder: Path) -> None:
    (report,) = await valkey.run(folder, say, kills=1)
    assert report.figures["primaries_lost_with_their_disks"] == 1
    assert_passed(report)


async def test_a_lost_primary_of_postgresql_loses_no_file(folder: Path) -> None:
    (report,) = await postgres.run(folder, say, kills=1)
    assert report.figures["files_completed"] > 0
    assert_passed(report)
