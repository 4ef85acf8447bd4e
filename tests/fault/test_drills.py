"""Short forms of the drills in benchmarks/drill: each fault once, under a little load."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from benchmarks.drill.audit import Report
from benchmarks.drill.crashpoints import at_first, load_scripts, sweep
from benchmarks.drill.kills import kills
from benchmarks.drill.load import HttpClient
from benchmarks.drill.replies import named_reply
from benchmarks.drill.restarts import restarts
from benchmarks.drill.stage import LIFTED, Stage
from benchmarks.drill.valkey import eviction, memory
from benchmarks.drill.workers import blocked, clock, frozen
from tests.proxy import Cut

SETTINGS = {"RAGQ_LEASE_SECONDS": 2, "RAGQ_HEARTBEAT_SECONDS": 0.6, "RAGQ_QUARANTINE_DEATHS": LIFTED}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A service without workers, whose LLM takes 0.3 s for an answer."""
    with (
        tempfile.TemporaryDirectory(prefix="ragq-drill-", ignore_cleanup_errors=True) as folder,
        Stage(Path(folder), latency=0.3, settings=SETTINGS) as stage,
    ):
        yield stage


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[HttpClient]:
    """A client of its API; the workers that a failed test left are stopped."""
    async with HttpClient(stage.url) as client:
        yield client
    stage.stop_workers()


def say(text: str) -> None:
    print(text)  # noqa: T201  (pytest shows it when the test fails)


def assert_passed(report: Report) -> None:
    assert report.checks
    assert report.passed, f"{report.failures()}: {report.figures}"


@pytest.mark.parametrize("name", ["enqueue", "claim", "commit"])
async def test_a_dropped_reply_is_neither_a_duplicate_nor_a_conflict_nor_a_loss(stage: Stage, name: str) -> None:
    report = await named_reply(stage, name)
    assert report.figures["dropped"] == {name: 1}
    assert_passed(report)


async def test_a_worker_killed_around_claim_and_commit_leaves_one_result_after_at_most_two_runs(stage: Stage) -> None:
    load_scripts(stage)
    choices = [(f"{cut.value}-{name}", at_first(name, cut)) for name in ("claim", "commit") for cut in Cut]
    points = await sweep(stage, choices, say)
    assert {point.cut for point in points} == {"before claim#1", "after claim#1", "before commit#1", "after commit#1"}
    assert all(point.holds for point in points), points


async def test_a_worker_frozen_for_three_leases_is_refused_its_late_commits(stage: Stage, client: HttpClient) -> None:
    assert_passed(await frozen(stage, client, say))


async def test_an_event_loop_blocked_for_two_leases_makes_no_second_result(stage: Stage, client: HttpClient) -> None:
    assert_passed(await blocked(stage, client, say))


async def test_workers_whose_clock_is_two_minutes_wrong_reap_nothing_early(stage: Stage, client: HttpClient) -> None:
    assert_passed(await clock(stage, client, say, seconds=6))


async def test_full_memory_is_a_429_and_ends_no_worker(stage: Stage, client: HttpClient) -> None:
    assert_passed(await memory(stage, client, say, seconds=4))


async def test_a_valkey_that_evicts_is_refused_by_workers_and_api(stage: Stage, client: HttpClient) -> None:
    assert_passed(await eviction(stage, client, say))


async def test_ten_kills_of_workers_two_of_valkey_and_one_of_up_lose_nothing(stage: Stage, client: HttpClient) -> None:
    report = await kills(stage, client, say, count=10, valkey_kills=2, up_kills=1, ready_seconds=20)
    assert_passed(report)
    assert report.figures["worker_kills"] == 10
    assert report.figures["valkey_kills"] == 2
    assert report.figures["up_kills"] == 1


@pytest.mark.timeout(240)
async def test_up_killed_amid_questions_and_an_ingest_starts_at_once_on_its_port_and_loses_nothing(
    stage: Stage, client: HttpClient
) -> None:
    assert_passed(await restarts(stage, client, say, rounds=2, ready_seconds=20))
