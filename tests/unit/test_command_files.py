"""Files that commands read and write, and what was done before an error: no traceback, and nothing is lost."""

from __future__ import annotations

import errno
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import click
import pytest
from click.testing import CliRunner, Result

from ragq import api_client
from ragq.admin.command import json_option
from ragq.admin.export_command import export_tenant
from ragq.cli import _Group, main
from ragq.commands import bench
from ragq.commands.load import Bounds, Measured, make_report
from ragq.errors import ConfigurationError, NotFoundError, PermanentError
from ragq.evaluation import command, report
from ragq.evaluation.asking import Result as Asked
from ragq.evaluation.files import check_output

STATUS = {"version": "1", "answers": {"kind": "extractive"}}
IDS = [f"file-{number:032x}" for number in range(3)]


class Api:
    """Takes every call but those about the last id."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        self.sent.append((method, path))
        one = str(options.get("json", {}).get("file_id") or next((id_ for id_ in IDS if id_ in path), ""))
        if one == IDS[-1]:
            raise NotFoundError("It is gone.")
        return {"id": one, "filename": one, "status": "in_progress", "data": [], "has_more": False}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    made = Api()
    monkeypatch.setattr(api_client, "open_client", lambda _url=None: made)
    return made


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def raising(error: Exception) -> click.Group:
    def fail(**_options: object) -> None:
        raise error

    wrapped: click.Command = click.command("go")(json_option(fail))
    return _Group("group", commands={"go": wrapped})


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a/b.json"),
            "a/b.json: No such file or directory.",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "It cannot be written: No space left on device."),
        (UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid continuation byte"), "A text is not in UTF-8"),
    ],
)
def test_an_error_of_a_file_is_a_message_and_no_traceback(error: Exception, said: str) -> None:
    done = CliRunner().invoke(raising(error), ["go"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"ragq: {said}")
    done = CliRunner().invoke(raising(error), ["go", "--json"])
    assert json.loads(done.stderr)["error"]["message"].startswith(said)


def test_an_error_that_is_about_no_file_is_not_hidden() -> None:
    error = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    assert CliRunner().invoke(raising(error), ["go"]).exception is error


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize("step", [("cancel",), ("retry",), ("rm", "--yes")])
@pytest.mark.parametrize("group", ["jobs", "documents"])
def test_what_was_done_before_an_error_is_told(group: str, step: tuple[str, ...]) -> None:
    if (group, step) == ("documents", ("cancel",)):
        return
    done = invoke(group, *step, IDS[0], *IDS)
    assert (done.exit_code, done.stderr) == (4, "ragq: It is gone.\n")
    assert [line.split()[0].rstrip(":") for line in done.stdout.splitlines()] == IDS[:2]
    done = invoke(group, *step, *IDS, "--json")
    assert [one["id"] for one in json.loads(done.stdout)["data"]] == IDS[:2]
    assert json.loads(done.stderr)["error"]["code"] == "not_found"
    done = invoke(group, *step, IDS[2], "--json")
    assert done.stdout == "", "nothing was done"


@pytest.fixture
def pressed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The questions of each load test."""
    asked: list[list[str]] = []

    def press(url: str, questions: list[str], bounds: Bounds) -> tuple[Any, list[Measured]]:
        asked.append(questions)
        measured = [Measured(0.1, 5.0)]
        return make_report(url, STATUS, bounds, measured, seconds=1.0, unfinished=0), measured

    monkeypatch.setattr(bench, "_press", press)
    return asked


def test_questions_are_read_as_utf_8_wherever_the_command_runs(
    pressed: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("io.text_encoding", lambda encoding, _level=2: encoding or "latin-1")
    file = tmp_path / "questions.txt"
    file.write_bytes("\ufeffWo ist die Brücke?\r\n\nWarum?".encode())
    assert invoke("bench", "--questions", str(file)).exit_code == 0
    assert pressed == [["Wo ist die Brücke?", "Warum?"]]
    file.write_bytes("Warum?\nWo ist die Brücke?".encode("latin-1"))
    done = invoke("bench", "--questions", str(file))
    assert (done.exit_code, done.stderr) == (1, "ragq: questions.txt, line 2: not UTF-8.\n")


@pytest.mark.parametrize("name", ["missing/load.json", "folder", "load.svg"])
def test_a_load_test_whose_results_cannot_be_written_is_not_begun(
    pressed: list[list[str]], tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder.svg").mkdir()
    done = invoke("bench", "--out", str(tmp_path / name))
    assert (done.exit_code, done.stdout, pressed) == (1, "", [])
    assert tmp_path.name in done.stderr


def test_a_load_test_shows_its_report_before_it_writes_it(
    pressed: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*_: object, **_options: object) -> int:
        raise full

    monkeypatch.setattr(Path, "write_text", fail)
    done = invoke("bench", "--out", str(tmp_path / "load.json"))
    assert (done.exit_code, len(pressed)) == (1, 1)
    assert "1 of 1 questions answered" in done.stdout
    assert "No space left on device" in done.stderr


def test_an_export_of_feedback_that_cannot_be_written_is_not_begun(api: Api, tmp_path: Path) -> None:
    done = invoke("feedback", "export", str(tmp_path / "missing" / "x.jsonl"))
    assert (done.exit_code, api.sent) == (1, [])
    assert f"There is no folder {tmp_path / 'missing'}" in done.stderr
    assert invoke("feedback", "export", str(tmp_path / "x.jsonl")).exit_code == 0


def test_a_file_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, _mode: Path(path).name != "theirs.json")
    check_output(tmp_path / "ours.json")
    (tmp_path / "theirs.json").touch()
    with pytest.raises(ConfigurationError, match=r"theirs\.json cannot be written"):
        check_output(tmp_path / "theirs.json")


async def test_an_evaluation_shows_its_report_before_it_writes_it(
    api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, out, before = (tmp_path / name for name in ("questions.jsonl", "out.json", "before.json"))
    questions.write_text('{"id": "1", "question": "Why?", "files": ["a.md"]}\n')
    made = report.make_report("some", [Asked("1", "Why?", {})], answers_by="extractive", documents=1, faults=[])

    @asynccontextmanager
    async def open_store(*_: object) -> AsyncIterator[Any]:
        yield SimpleNamespace(id="vs_1")

    async def examine(*_: object) -> report.Report:
        out.mkdir()
        return made

    monkeypatch.setattr(command, "_open_store", open_store)
    monkeypatch.setattr(command, "_examine", examine)
    report.write_report(made, before)
    before.write_text(before.read_text().replace("Why?", "When?"))
    with pytest.raises(ConfigurationError, match="no question in common"):
        await command.evaluate(api, questions, command.Options(store="s", compare=before))
    assert not out.exists(), "nothing was asked"
    with pytest.raises(IsADirectoryError):
        await command.evaluate(api, questions, command.Options(store="s", out=out, as_json=True))
    assert json.loads(capsys.readouterr().out)["questions"][0]["question"] == "Why?"


def test_a_draft_that_cannot_be_written_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "draft", lambda *_: pytest.fail("begun"))
    (tmp_path / "a.md").write_text("A")
    done = invoke("eval", "--make", str(tmp_path), "--out", str(tmp_path / "missing" / "x.jsonl"))
    assert (done.exit_code, "There is no folder" in done.stderr) == (1, True)


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON", b"\xe9"])
async def test_a_folder_with_a_manifest_of_something_else_is_left_alone(
    api: Any, tmp_path: Path, content: str | bytes
) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PermanentError, match="is of no export"):
        await export_tenant(api, "acme", tmp_path, lambda _: None)
    assert manifest.exists()
    assert api.sent == []
