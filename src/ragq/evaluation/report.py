"""The report of a run: a table for the terminal, and a file that a later run can be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from ragq import __version__
from ragq.errors import ConfigurationError
from ragq.evaluation.asking import Result
from ragq.evaluation.measures import MEASURES, Summary, percentiles, summarize

SHOWN_FAULTS = 10


@dataclass(frozen=True, slots=True)
class Report:
    """What a run measured.

    Attributes:
        answers_by: `extractive`, or the name of the LLM.
        documents: How many were put in; 0 if the store was there.
        faults: (name, reason) of each document that cannot be searched.
        measures: By name, as in `measures.MEASURES`.
        latency_ms: Of the answers, as the server measured them: percentiles.
        tokens: Of all answers, `input` and `output`; empty without an LLM.
    """

    dataset: str
    created_at: str
    ragq: str
    answers_by: str
    documents: int
    faults: list[tuple[str, str]]
    measures: dict[str, Summary]
    latency_ms: dict[str, float]
    tokens: dict[str, int]
    questions: list[Result]


def make_report(
    dataset: str, results: Sequence[Result], *, answers_by: str, documents: int, faults: list[tuple[str, str]]
) -> Report:
    """Sum up the results."""
    tokens = {
        "input": sum(result.input_tokens or 0 for result in results),
        "output": sum(result.output_tokens or 0 for result in results),
    }
    return Report(
        dataset=dataset,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        ragq=__version__,
        answers_by=answers_by,
        documents=documents,
        faults=faults,
        measures=summarize(result.measures for result in results),
        latency_ms=percentiles([result.latency_ms for result in results if result.latency_ms is not None]),
        tokens=tokens if any(tokens.values()) else {},
        questions=list(results),
    )


def write_report(report: Report, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def read_report(path: Path) -> Report:
    """Read a report that `write_report` wrote.

    Raises:
        ConfigurationError: There is none; the message names the file.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{path} is not a file that `ragq eval --out` wrote: {error}.") from error


def format_report(report: Report) -> str:
    """Format a report as a table, with what could not be ingested or answered below it."""
    lines = [click.style(f"{'measure':30}{'mean':>8}{'questions':>11}", bold=True)]
    for name, measure in MEASURES.items():
        if found := report.measures.get(name):
            lines.append(f"{measure.title:30}{found.mean:>8.3f}{found.n:>11}")
    if report.latency_ms:
        shown = "  ".join(f"{name} {value:,.0f} ms" for name, value in report.latency_ms.items())
        lines.append(f"{'latency':30}  {shown}")
    if report.tokens:
        lines.append(f"{'tokens':30}  in {report.tokens['input']:,}  out {report.tokens['output']:,}")
    lines += _format_faults("document cannot be searched", report.faults)
    failed = [(result.question, result.error) for result in report.questions if result.error]
    return "\n".join([*lines, *_format_faults("question failed", failed)])


def _format_faults(what: str, faults: Sequence[tuple[str, str]]) -> list[str]:
    lines = [click.style(f"{what}: {name}: {reason}", fg="red") for name, reason in faults[:SHOWN_FAULTS]]
    return lines + [f"… and {len(faults) - SHOWN_FAULTS} more"] * (len(faults) > SHOWN_FAULTS)
