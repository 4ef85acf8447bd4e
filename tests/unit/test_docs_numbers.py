"""Numbers in the documents: limits as the code has them, figures as `benchmarks/results` has them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ragq.client.llm_stream import MAX_ANSWER_CHARACTERS
from ragq.client.request_client import LARGE_BYTES, MAX_SHOWN_BYTES
from ragq.http.access import MAX_JSON_BYTES, MAX_KEYLESS_BYTES, MAX_PART_BYTES
from ragq.http.connections import LAST_SECONDS, MAX_HEAD_BYTES, MAX_HEADERS, MIN_BODY_BYTES, SECONDS, Wait
from ragq.http.keys import GUESS_SECONDS, GUESSES
from ragq.http.session import SESSION_SECONDS
from ragq.http.websockets import MAX_FRAMES, WEBSOCKET_LIMITS
from ragq.mcp.documents import MAX_CHARACTERS as MCP_CHARACTERS
from ragq.queues.async_worker import CLAIM_BATCH
from ragq.queues.documents import SMALL_BYTES
from ragq.queues.embeddings import PART_CHARACTERS, PART_TEXTS
from ragq.queues.questions import NOW_SECONDS
from ragq.queues.webhooks import WAITS
from ragq.routes.context import FOREGROUND_SECONDS
from ragq.routes.streams import PING_SECONDS
from ragq.schemas.batch_lines import MAX_INPUTS, MAX_LINES
from ragq.schemas.checks import MAX_DEPTH, MAX_VALUES
from ragq.schemas.embeddings import MAX_TEXTS, MAX_TOKENS
from ragq.storage.database_check import POSTGRESQL
from ragq.websocket.memory import MAX_RESPONSES
from ragq.websocket.route import LIFETIME_SECONDS, MAX_WAITING

ROOT = Path(__file__).parents[2]
KB, MB = 1 << 10, 1 << 20
WORDS: dict[float, str] = {10: "ten", 3600: "an hour"}

LIMITS = {
    "docs/reference/http.md": [
        f"A JSON body has at most {MAX_JSON_BYTES // MB} MiB, and {MAX_KEYLESS_BYTES // KB} KiB where no key is needed",
        f"A body has at most {MAX_VALUES:,} values, nested at most {MAX_DEPTH} deep",
        f"Request line and headers together have at most {MAX_HEAD_BYTES // KB} KiB and {MAX_HEADERS} headers",
        f"They must arrive within {SECONDS[Wait.FIRST_REQUEST]:g} s of the connection, or of the answer before",
        f"must bring {MIN_BODY_BYTES // KB} KiB each {SECONDS[Wait.BODY]:g} s, else 408",
        f"A client must take some of an answer each {SECONDS[Wait.READER]:g} s.",
        f"After {WORDS[GUESSES]} wrong keys from one address, keys from there get 429",
        f"one more is tried each {GUESS_SECONDS:g} s",
        f"answer when the question has ended, at most after {FOREGROUND_SECONDS:g} s",
        f"over {MAX_SHOWN_BYTES // KB} KB beside its input",
        f"without one the answer is 503 after {NOW_SECONDS:g} s. More than {PART_TEXTS} texts or {PART_CHARACTERS:,} characters",
        f"up to {MAX_TEXTS:,} texts, or the same as tokens of cl100k_base, up to {MAX_TOKENS:,} in all",
        f"A part has at most {MAX_PART_BYTES // MB} MiB",
        f"of at most {MAX_LINES:,} lines",
        f"A batch of embeddings has at most {MAX_INPUTS:,} inputs",
        f"It holds an end, {SESSION_SECONDS // 3600} hours on",
        f"there are {'six' if len(WAITS) == 6 else len(WAITS)} more attempts",
    ],
    "docs/explanation/queue.md": [
        f"An answer has at most {MAX_ANSWER_CHARACTERS:,} characters",
        f"a job for embeddings {PART_TEXTS} vectors",
        f"A worker claims up to {CLAIM_BATCH} jobs at once",
        f"Documents of up to {SMALL_BYTES // 1000} KB go to `priority`",
        f"have more than {LARGE_BYTES // KB} KB as JSON",
        f"more than {MAX_SHOWN_BYTES // KB} KB of it are refused with 413",
    ],
    "docs/explanation/streams.md": [
        f"what is sent ahead waits, {MAX_WAITING} messages and {MAX_JSON_BYTES // MB} MiB at most",
        f"(`store: false`), {MAX_RESPONSES} at most",
        f"A connection is pinged every {WEBSOCKET_LIMITS['ws_ping_interval']:g} s. It ends after {WORDS[LIFETIME_SECONDS]}",
        f"or after {SECONDS[Wait.NEXT_MESSAGE] / 60:g} minutes without a message",
        f"it completes a running answer for up to {LAST_SECONDS:g} seconds",
        f"A comment line is sent every {PING_SECONDS:g} s",
    ],
    "docs/explanation/security.md": [
        f"A message is at most {MAX_JSON_BYTES // MB} MiB, and a second has at most {MAX_FRAMES:,} frames; {MAX_WAITING} requests may wait",
        f"After {WORDS[GUESSES]} wrong keys from one address, one more is compared each {GUESS_SECONDS:g} s",
        f"A head has at most {MAX_HEAD_BYTES // KB} KiB and {SECONDS[Wait.FIRST_REQUEST]:g} s",
    ],
    "docs/explanation/embedded.md": [f"PostgreSQL must be {POSTGRESQL} or later"],
    "docs/how-to/upgrade.md": [f"PostgreSQL is {POSTGRESQL} or newer"],
    "docs/how-to/mcp.md": [f"the first {MCP_CHARACTERS:,} characters of it"],
}


def words_of(page: str) -> str:
    """The text of a page with its lines joined."""
    return " ".join((ROOT / page).read_text().split())


@pytest.mark.parametrize("page", LIMITS)
def test_a_limit_that_a_page_names_is_the_codes(page: str) -> None:
    text = words_of(page)
    assert [phrase for phrase in LIMITS[page] if phrase not in text] == []


def results(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def figures_of(scenario: str) -> dict[str, Any]:
    (found,) = (one["figures"] for one in results("drill")["reports"] if one["scenario"] == scenario)
    return dict(found)


def test_the_promise_has_the_figures_of_the_last_kills() -> None:
    kills = figures_of("kills")
    recovery, alone = kills["recovery_seconds"], kills["recovery_seconds_without_outage"]
    text = words_of("docs/explanation/promise.md")
    for row in (
        f"| accepted questions | {kills['accepted']:,} |",
        f"| finished | {kills['states']['finished']:,} |",
        f"| lost | {kills['lost']} |",
        f"| with two visible results | {kills['two_visible_results']} |",
        f"| runs, as the LLM saw them | {kills['runs']:,} |",
        f"| recovery p50 / p95 / max | {recovery['p50']} / {recovery['p95']} / {recovery['max']} s |",
        f"| the same, of those that no outage of Valkey met | {alone['p50']} / {alone['p95']} / {alone['max']} s |",
    ):
        assert row in text
    shown = f"`kills`: {kills['accepted']:,} accepted, {kills['lost']} lost, {kills['two_visible_results']} double, recovery p95 "
    assert f"{shown}{recovery['p95']} s" in words_of("benchmarks/README.md")


@pytest.mark.parametrize("scenario", ["replies", "clock", "memory"])
def test_the_promise_has_the_figures_of_the_other_drills(scenario: str) -> None:
    found = figures_of(scenario)
    (row,) = (
        line
        for line in (ROOT / "docs/explanation/promise.md").read_text().splitlines()
        if line.startswith(f"| `{scenario}` | ") and " accepted, " in line
    )
    assert f"{found['accepted']} accepted, {found['states']['finished']} finished" in row


def test_a_full_memory_is_answered_with_429() -> None:
    assert figures_of("memory")["http_answers"].keys() == {"200", "429"}


def test_the_readme_has_the_figures_of_the_results() -> None:
    text = words_of("README.md")
    queue = results("queue")["figures"]["ragq"]["calls"]
    assert f"{queue['jobs_a_second']:.0f} jobs/s, {queue['worker_cpu_ms_a_job']} ms CPU a job" in text
    answers = results("answers")["figures"]["throughput"]["one_worker"]["answers_per_second"]
    assert f"| {answers} a second: " in text


def test_the_pages_agree_on_the_memory_of_an_idle_ragq() -> None:
    (shown,) = re.findall(r"\| memory of everything, idle, .* \| (\d+) MB \|", words_of("README.md"))
    assert f"Idle {shown} MB without an LLM" in words_of("benchmarks/README.md")
    (bound,) = re.findall(r"An idle `ragq up` needs less than (\d+) MB", words_of("docs/explanation/when-to-use.md"))
    assert int(shown) < int(bound)


def test_the_page_on_streams_has_the_figures_of_the_last_run() -> None:
    found = results("streams")
    text = words_of("docs/explanation/streams.md")
    moments = [
        found[f"api_{moment}"]
        for moment in ("base", "with_readers", "after_they_ended", "after_a_second_crowd_dropped")
    ]
    assert "| descriptors | " + " | ".join(str(one["descriptors"]) for one in moments) + " |" in text
    assert "| resident, MB | " + " | ".join(str(one["rss_mb"]) for one in moments) + " |" in text
    blocks = " | ".join(str(round(one["blocks"] / 1000)) for one in moments)
    assert f"| blocks in use by Python's objects, thousand | {blocks} |" in text
