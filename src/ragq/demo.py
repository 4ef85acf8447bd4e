"""The demo: ingest ragq's handbook and ask several questions at the same time."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from ragq.api_client import ApiClient
from ragq.errors import TransientError
from ragq.parsing.ocr import find_tesseract
from ragq.settings import Settings
from ragq.terminal import format_response, format_status
from ragq.up import Fleet

HANDBOOK = Path(__file__).parent / "handbook"
SCAN = Path(__file__).parent / "scan" / "notice.pdf"
QUESTIONS = [
    "How long does it take until a job of a killed worker starts again?",
    "What happens to a document that kills its worker?",
    "Which command starts another worker in a second terminal?",
    "How are the results of the two searches combined?",
    "What does ragq not promise?",
    "Who won the football world cup in 1954?",
]
SCAN_QUESTION = "In which cabinet is the spare disk?"


def run(settings: Settings, *, temporary: bool, exits: bool) -> None:
    """Run the demo; keep ragq running afterwards unless `exits`."""
    with tempfile.TemporaryDirectory(prefix="ragq-demo-") as folder:
        if temporary:
            settings = settings.model_copy(update={"data_dir": Path(folder)})
        with Fleet(settings, query_workers=2, document_workers=1) as fleet:
            _title("1. Starting Valkey, PostgreSQL, the API, two query workers and one document worker")
            started = time.monotonic()
            fleet.start()
            click.echo(f"Ready after {time.monotonic() - started:.1f} s at {fleet.url}")
            key = settings.api_key.get_secret_value() if settings.api_key else None
            fleet.run(_show(ApiClient(fleet.url, key)))
            if not exits:
                click.secho(f"\nragq stays up at {fleet.url}. Ctrl-C stops it.", bold=True)
                click.echo(f'Ask it: .venv/bin/ragq ask --url {fleet.url} "your question"')
                fleet.watch()


async def _show(client: ApiClient) -> None:
    async with client:
        _title("2. Ingesting the handbook, and a scanned page")
        documents = sorted(path for path in HANDBOOK.iterdir() if path.suffix in (".pdf", ".md"))
        for path in documents:
            await _ingest(client, path)
        questions = list(QUESTIONS)
        if find_tesseract():
            await _ingest(client, SCAN)
            questions.insert(0, SCAN_QUESTION)
        else:
            click.echo(f"{SCAN.name} is a scan, which tesseract would read: install tesseract-ocr.")
        _title(f"3. Asking {len(questions)} questions at the same time")
        responses = await _ask_together(client, questions)
        _title("4. Answers")
        for question, response in zip(questions, responses, strict=True):
            click.secho(f"\n{question}", bold=True)
            click.echo(format_response(response))
        _title("5. Queues and workers")
        click.echo(format_status(await client.call("GET", "/status")))
        unanswered = [response["id"] for response in responses if response["status"] != "completed"]
        if unanswered:
            raise TransientError(f"{len(unanswered)} questions were not answered: {', '.join(unanswered)}.")


async def _ingest(client: ApiClient, path: Path) -> None:
    with click.progressbar(length=100, label=f"{path.name:28}", width=30) as bar:
        shown = 0

        def advance(share: float) -> None:
            nonlocal shown
            bar.update(int(share * 100) - shown)
            shown = int(share * 100)

        state = await client.ingest(path, path.name, on_progress=advance)
    if state["status"] != "completed":
        raise TransientError(f"{path.name} was not ingested: {state['last_error']}")
    click.echo(f"  {state['chunk_count']} passages searchable")


async def _ask_together(client: ApiClient, questions: list[str]) -> list[dict[str, Any]]:
    """Ask all questions at once, and show the queue until they are answered."""
    tasks = [asyncio.create_task(client.ask(question)) for question in questions]
    line = ""
    while not all(task.done() for task in tasks):
        state = await client.call("GET", "/status")
        queued = sum(queue["queued"] for queue in state["queues"])
        in_flight = sum(queue["in_flight"] for queue in state["queues"])
        answered = sum(task.done() for task in tasks)
        now = f"queued {queued}   in flight {in_flight}   answered {answered} of {len(tasks)}"
        if now != line:
            click.echo(now)
            line = now
        await asyncio.sleep(0.05)
    click.echo(f"answered {len(tasks)} of {len(tasks)}")
    return [task.result() for task in tasks]


def _title(text: str) -> None:
    click.secho(f"\n{text}", fg="green", bold=True)
