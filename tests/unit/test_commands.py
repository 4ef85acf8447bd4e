"""Commands that need no service: paging, shortened ids, tables, log files, and jobs against a stand-in of their routes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import click
import pytest
from click.testing import CliRunner, Result

from ragq import api_client
from ragq.admin.paging import list_objects
from ragq.cli import _Group, main
from ragq.commands import listing
from ragq.commands.listing import Kind, find_id, show_objects
from ragq.commands.load import Bounds, Measured, format_report, make_report, press
from ragq.commands.log_files import LogFile, LogFolder, read_entry
from ragq.errors import InvalidRequestError, NotFoundError
from ragq.terminal import format_fields, format_table

THINGS = Kind("thing", "things list", "/v1/things", "name")
FILTERED = Kind("thing", "things list", "/v1/things", "name", name_filter="filename")
NAMELESS = Kind("thing", "things list", "/v1/things")
NOT_FOR_PEOPLE = {"serve", "worker", "migrate", "demo", "completion"}  # they log, show, or print what a shell reads


class Api:
    """Lists of objects, in pages as the API gives them, and what was sent."""

    def __init__(self, objects: list[dict[str, Any]]) -> None:
        self.objects = objects
        self.sent: list[tuple[str, str, dict[str, Any]]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        params = dict(options.get("params", {}))
        self.sent.append((method, path, params))
        if method != "GET":
            return {}
        if "limit" not in params:
            return next(one for one in self.objects if path.endswith(one["id"]))
        listed = [one for one in self.objects if params.get("filename", "").lower() in one.get("name", "").lower()]
        ids = [one["id"] for one in listed]
        start = ids.index(params["after"]) + 1 if "after" in params else 0
        page = listed[start : start + params["limit"]]
        more = start + params["limit"] < len(ids)
        return {"object": "list", "data": page, "has_more": more, "last_id": page[-1]["id"] if page else None}


def things(count: int) -> list[dict[str, Any]]:
    return [{"id": f"job-{number:032x}", "name": f"thing {number}"} for number in range(count)]


async def find(api: Api, given: str, kind: Kind = THINGS) -> str:
    return await find_id(api, kind, given)  # type: ignore[arg-type]


async def test_a_list_of_thousands_is_read_page_by_page() -> None:
    api = Api(things(2345))
    found = await list_objects(api, THINGS.path)  # type: ignore[arg-type]
    assert (len(found["data"]), found["has_more"], len(api.sent)) == (2345, False, 24)
    some = await list_objects(api, THINGS.path, most=150)  # type: ignore[arg-type]
    assert (len(some["data"]), some["has_more"], len(api.sent)) == (150, True, 26)
    rare = await list_objects(api, THINGS.path, most=3, keep=lambda one: one["name"].endswith("00"))  # type: ignore[arg-type]
    assert [one["name"] for one in rare["data"]] == ["thing 100", "thing 200", "thing 300"]


@pytest.mark.parametrize(("most", "has_more"), [(99, True), (100, False), (101, False)])
async def test_a_list_says_whether_there_are_more(most: int, has_more: bool) -> None:
    found = await list_objects(Api(things(100)), THINGS.path, most=most)  # type: ignore[arg-type]
    assert found["has_more"] == has_more


@pytest.mark.parametrize("command", ["keys", "sessions", "tenants"])
def test_lists_of_the_administration_do_not_end_with_the_first_page(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(api_client, "open_client", lambda _url: Api(things(250)))
    shown = invoke(command, "list", "--json")
    assert len(json.loads(shown.stdout)["data"]) == 250


async def test_an_id_may_be_shortened_or_be_a_name() -> None:
    api = Api([{"id": "vs_ab12", "name": "one"}, {"id": "vs_ab34", "name": "ab"}, {"id": "vs_cd", "name": "two"}])
    assert [await find(api, given) for given in ("vs_c", "cd", "two", "ab34")] == 3 * ["vs_cd"] + ["vs_ab34"]
    assert await find(api, "ab") == "vs_ab34", "a name goes before the beginning of an id"
    with pytest.raises(InvalidRequestError, match=r"each of 2 things: give more of the id\. vs_ab12, vs_ab34"):
        await find(api, "vs_a")
    long = Api([{"id": f"vs_{2 * n}{30 * 'a'}", "name": ""} for n in "0123"])
    assert await find(long, f"11{10 * 'a'}") == f"vs_11{30 * 'a'}"
    with pytest.raises(NotFoundError, match="`ragq things list` lists them"):
        await find(api, "e")
    asked = len(api.sent)
    assert await find(api, f"vs_{32 * 'e'}") == f"vs_{32 * 'e'}"
    assert len(api.sent) == asked, "a whole id is not looked for"


async def test_a_name_among_thousands_is_looked_for_by_the_server() -> None:
    api = Api(things(50_000))
    assert await find(api, "thing 49999", FILTERED) == f"job-{49_999:032x}"
    with pytest.raises(NotFoundError):
        await find(api, "thing 50000", FILTERED)
    assert [sent[2]["filename"] for sent in api.sent] == ["thing 49999", "thing 50000"]
    with pytest.raises(InvalidRequestError, match="each of 2 things"):
        await find(Api(2 * things(1)), "thing 0", FILTERED)


@pytest.mark.parametrize("kind", [THINGS, FILTERED])
@pytest.mark.parametrize("name", ["202311301200", "deadbeefcafe", "vs_deadbeefcafe"])
async def test_several_with_a_name_that_looks_like_an_id_are_not_guessed_among(kind: Kind, name: str) -> None:
    named = [one | {"name": name} for one in things(150)[::149]]
    with pytest.raises(InvalidRequestError, match="each of 2 things"):
        await find(Api([*named, *things(149)[1:]]), name, kind)
    assert await find(Api(named[1:]), name, kind) == named[1]["id"]


async def test_documents_jobs_of_a_store_are_not_guessed_among() -> None:
    ids = [f"vs_{32 * 'a'}-file-{32 * digit}-1" for digit in "bc"]
    with pytest.raises(InvalidRequestError, match="each of 2 things"):
        await find(Api([{"id": one} for one in ids]), f"vs_{12 * 'a'}", NAMELESS)
    assert await find(Api([{"id": ids[0]}]), f"vs_{12 * 'a'}", NAMELESS) == ids[0]


async def test_no_more_are_looked_at_than_that_and_an_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SEARCHED", 300)
    api = Api(things(301))
    for given in ("thing 7", "b"):  # what is found may be there once more among the others
        with pytest.raises(InvalidRequestError, match="Only the newest 300 things were looked at: give the whole id"):
            await find(api, given)
    assert len(api.sent) == 6
    assert await find(Api(things(300)), "thing 7") == f"job-{7:032x}"
    assert await find(api, f"{7:032x}", NAMELESS) == f"job-{7:032x}", "that is of one object alone"


async def test_nothing_is_no_beginning_of_an_id() -> None:
    with pytest.raises(InvalidRequestError, match="The id of a thing is empty"):
        await find(Api(things(1)), "")


JOB = {
    "tenant": "default",
    "api_key_id": None,
    "queue": "queries",
    "kind": "question",
    "state": "failed",
    "created_at": 1_000_000.0,
    "ran_ms": 2500,
    "attempts": 3,
    "model": None,
    "error_code": "llm_timeout",
    "excerpt": "How tall is it?",
}
TIMELINE = {
    "steps": [
        {"at": 1_000_000.0, "what": "queued", "attempt": None, "detail": "queries"},
        {"at": 1_000_000.25, "what": "started", "attempt": 1, "detail": "a worker"},
    ],
    "stages": [{"stage": "queued", "ms": 250}, {"stage": "retrieve", "ms": 31}],
    "question": "How tall is it?",
    "answer": None,
    "error": "The LLM did not answer in time.",
    "sources": [{"file_id": "file-1", "filename": "harbour.md", "page": 3, "score": 0.5, "citations": 1}],
}


class JobsApi(Api):
    """A stand-in of the routes of jobs, whose pages have a cursor of their own."""

    async def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        found = await super().call(method, path, **options)
        if "last_id" in found:
            return {"object": "list", "data": found["data"], "next": found["last_id"] if found["has_more"] else None}
        return found if method == "GET" else {"id": path.removeprefix("/v1/admin/jobs/").split("/")[0]}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Api:
    api = JobsApi([{**one, **JOB, "timeline": TIMELINE} for one in things(150)])
    monkeypatch.setattr(api_client, "open_client", lambda _url: api)
    return api


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_jobs_are_listed_with_what_they_are_asked_for(jobs: Api) -> None:
    asked = ("--state", "failed", "--error", "llm_timeout", "--since", "1970-01-02", "--limit", "120")
    done = invoke("jobs", "list", *asked)
    head, first, *rest = done.stdout.splitlines()
    assert len(rest) == 119
    assert head.split()[4:] == ["state", "created_at", "ran_ms", "error_code", "excerpt"]
    assert first.split()[4:] == ["failed", "1970-01-12", "13:46", "2500", "llm_timeout", "How", "tall", "is", "it?"]
    assert "There are more" in done.stderr
    wanted = {"state": "failed", "error_code": "llm_timeout", "since": 86400, "limit": 100}
    assert jobs.sent == [
        ("GET", "/v1/admin/jobs", wanted),
        ("GET", "/v1/admin/jobs", wanted | {"after": f"job-{99:032x}"}),
    ]
    shown = json.loads(invoke("jobs", "list", "--all", "--json").stdout)
    assert (len(shown["data"]), shown["has_more"]) == (150, False)


@pytest.mark.parametrize(
    ("command", "method", "step", "said"),
    [
        (("retry",), "POST", "/retry", "waits again"),
        (("cancel",), "POST", "/cancel", "is cancelled"),
        (("rm", "--yes"), "DELETE", "", "is deleted"),
    ],
)
def test_jobs_are_changed_by_their_ids(jobs: Api, command: tuple[str, ...], method: str, step: str, said: str) -> None:
    ids = [f"job-{number:032x}" for number in (3, 149)]
    done = invoke("jobs", *command, ids[0], "0" * 29 + "095")
    assert done.stdout == "".join(f"{one} {said}.\n" for one in ids)
    assert jobs.sent[-2:] == [(method, f"/v1/admin/jobs/{one}{step}", {}) for one in ids]


def test_a_job_is_shown_with_its_steps_and_texts(jobs: Api) -> None:
    lines = invoke("jobs", "show", f"job-{7:032x}").stdout.splitlines()
    assert "error_code  llm_timeout" in lines
    assert [line.split() for line in lines if line.startswith("+")] == [
        ["+0.00", "queued", "-", "queries"],
        ["+0.25", "started", "1", "a", "worker"],
    ]
    assert "queued 250 ms  retrieve 31 ms" in lines
    assert "error: The LLM did not answer in time." in lines
    assert lines[-1].split() == ["harbour.md", "3", "0.5", "1"]
    assert jobs.sent == [("GET", f"/v1/admin/jobs/job-{7:032x}", {})]


def find_commands(group: click.Group, of: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from find_commands(command, f"{of}{name} ")
        else:
            yield of + name, command


def test_every_command_that_prints_for_people_has_json() -> None:
    assert isinstance(main, click.Group)
    without = {
        name
        for name, command in find_commands(main)
        if "--json" not in {opt for one in command.params for opt in one.opts}
    }
    assert without == NOT_FOR_PEOPLE


def test_an_interruption_ends_with_code_130() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    group = _Group("group", commands={"wait": click.Command("wait", callback=interrupt)})
    assert CliRunner().invoke(group, ["wait"]).exit_code == 130


def test_a_table_counts_wide_characters_and_leaves_out_commands_to_the_terminal() -> None:
    rows = [{"name": "東京", "at": "x"}, {"name": "a\x1b[2J\n", "at": "y"}]
    assert click.unstyle(format_table(rows, ("name", "at"))).splitlines() == ["name    at", "東京    x", "a [2J   y"]


def test_a_table_fits_a_terminal_and_is_whole_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": 30 * "i", "text": 100 * "w", "n": 7, "usage_bytes": 12_345_678, "status": "failed"}]
    columns = tuple(rows[0])
    assert 100 * "w" in format_table(rows, columns)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    head, line = click.unstyle(format_table(rows, columns)).splitlines()
    assert len(line) == 80
    assert line.split() == [30 * "i", 23 * "w" + "…", "7", "12.3", "MB", "failed"]
    assert head.split() == list(columns)


def test_a_terminal_shows_shortened_ids(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = {"object": "list", "data": [{"id": f"vs_{32 * 'a'}"}], "has_more": False}
    show_objects(found, ("id",), as_json=False)
    assert capsys.readouterr().out.split()[-1] == f"vs_{32 * 'a'}"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    show_objects(found, ("id",), as_json=False)
    assert capsys.readouterr().out.split()[-1] == f"vs_{12 * 'a'}"
    show_objects(found, ("id",), as_json=True)
    assert json.loads(capsys.readouterr().out) == found


def test_fields_are_shown_in_words() -> None:
    shown = format_fields({"shared": False, "file_counts": {"failed": 1, "total": 2}, "created_at": 0, "name": ""})
    assert [line.split(maxsplit=1)[1] for line in click.unstyle(shown).splitlines()] == [
        "no",
        "failed 1, total 2",
        "1970-01-01 00:00",
        "-",
    ]


def test_lines_of_the_servers_have_their_time_and_level() -> None:
    postgresql = read_entry("2026-11-29 11:46:28.123 UTC [42] FATAL:  the database is starting up", "postgresql")
    assert postgresql["level"] == "critical"
    assert postgresql["timestamp"] == "2026-11-29T11:46:28.123Z"
    valkey = read_entry("7:M 29 Nov 2026 11:46:28.123 # Out of memory", "valkey")
    assert (valkey["level"], valkey["event"]) == ("warning", "Out of memory")
    assert valkey["timestamp"] == "2026-11-29T11:46:28.123Z"


def log(path: Path, *events: str, end: str = "\n") -> None:
    lines = [json.dumps({"event": one, "level": "info", "timestamp": one}) for one in events]
    with path.open("a") as file:
        file.write("\n".join(lines) + end)


def test_a_log_file_is_followed_over_its_renaming_and_without_half_lines(tmp_path: Path) -> None:
    path = tmp_path / "api.log"
    log(path.with_suffix(".log.1"), "1")
    log(path, "2")
    file = LogFile(path)
    assert [one["event"] for one in file.read()] == ["1", "2"]
    log(path, "3", end="")
    assert list(file.read()) == []
    with path.open("a") as begun:
        begun.write("\nTraceback of 3\n")
    assert [(one["event"], one["timestamp"]) for one in file.read()] == [("3", "3"), ("Traceback of 3", "3")]
    log(path, "4")
    path.replace(path.with_suffix(".log.1"))
    log(path, "5")
    assert [one["event"] for one in file.read()] == ["4", "5"]
    file.close()


def test_the_last_lines_of_several_files_are_in_the_order_of_time(tmp_path: Path) -> None:
    log(tmp_path / "api.log", "1", "4", "5")
    log(tmp_path / "up.log", "2", "3", "6")
    log(tmp_path / "valkey.log", "7")
    with LogFolder(tmp_path, ("a", "up")) as folder:
        last = folder.read_last(4, lambda entry: entry["event"] != "5")
        assert [one["event"] for one in last] == ["2", "3", "4", "6"]
        log(tmp_path / "api-2.log", "9")
        log(tmp_path / "up.log", "8")
        assert [one["process"] for one in folder.read_new(lambda _: True)] == ["up", "api-2"]


async def test_a_load_test_keeps_to_its_bounds() -> None:
    asked, at_once, most = list[str](), 0, 0

    class Asked:
        async def ask(self, question: str, **_fields: Any) -> dict[str, Any]:
            nonlocal at_once, most
            asked.append(question)
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            at_once -= 1
            return {"status": "completed", "error": None, "timing": {"total_ms": 1}}

    client: Any = Asked()
    measured, _, unfinished = await press(client, ["a", "b"], Bounds(11, 60, 3), lambda _: None)
    assert (len(measured), unfinished, most) == (11, 0, 3)
    assert (asked.count("a"), asked.count("b")) == (6, 5)
    measured, _, unfinished = await press(client, ["a"], Bounds(11, 0, 3), lambda _: None)
    assert (measured, unfinished) == ([], 0)


def test_a_load_test_sums_up_answers_alone() -> None:
    measured = [Measured(0.1 * n, float(n), stages_ms={"answer": n / 2}) for n in range(1, 101)]
    measured += [Measured(1, 5000, "rate_limit_exceeded")] * 2
    status = {"version": "1", "answers": {"kind": "generated", "model": "m"}}
    report = make_report("http://x", status, Bounds(110, 60, 8), measured, seconds=4.0, unfinished=1)
    assert report.latency_ms == {"p50": 50, "p95": 95, "p99": 99}
    assert report.stages_ms == {"answer": {"p50": 25, "p95": 47.5, "p99": 49.5}}
    assert (report.requests, report.answered, report.rate) == (103, 100, 25.0)
    text = click.unstyle(format_report(report))
    assert "100 of 103 questions answered (m) in 4.0 s, 8 at once: 25 answers/s" in text
    assert "2 failed: rate_limit_exceeded" in text
    assert "1 not answered when the time was over" in text
