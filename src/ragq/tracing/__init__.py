"""Traces: spans of what a process does, for an OpenTelemetry collector.

Off, unless a standard variable names a collector (`is_wanted`). Then nothing of OpenTelemetry is imported here, and each function
returns at once; a span is the one object `NO_SPAN` of `spans.py`. `otel.py` has the rest. A trace goes with a job from the API to the worker
as its `traceparent`, W3C's one line of trace id, span id and flags; "" stands for none.

Spans name ids, models, counts and times. Texts of questions and documents are in them only if
`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Final, Literal, Protocol

import structlog

from ragq.tracing.spans import NO_SPAN, Attributes, Kind, Span

log = structlog.get_logger(__name__)

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
TRUE: Final = "true"


class Tracer(Protocol):
    """What `otel.py` does for the functions below, which have the same names."""

    def span(self, name: str, attributes: Attributes, kind: Kind) -> Span: ...
    def begin(self, name: str, attributes: Attributes, kind: Kind, headers: Mapping[str, str]) -> Span: ...
    def record(self, name: str, parents: Iterable[str | None], *, started_ns: int) -> None: ...
    def headers(self) -> dict[str, str]: ...
    def fail(self, code: str) -> None: ...
    def ids(self) -> dict[str, str]: ...


NO_ATTRIBUTES: Final[Attributes] = {}
_tracer: Tracer | None = None


def is_wanted() -> bool:
    """Whether the environment asks for traces: it names a collector, and neither switches OpenTelemetry off nor another exporter on."""
    read = os.environ.get
    return (
        any(read(name) for name in ENDPOINTS)
        and read("OTEL_SDK_DISABLED", "").strip().lower() != TRUE
        and read("OTEL_TRACES_EXPORTER", "otlp").strip() == "otlp"
    )


def start_tracing(component: Literal["api", "worker"]) -> bool:
    """Send the spans of this process to a collector from now on, if that is wanted; returns whether it does."""
    global _tracer  # noqa: PLW0603  (one for the process, as its log is)
    if _tracer is None and is_wanted():
        try:
            from ragq.tracing.otel import OtelTracer  # noqa: PLC0415  (only the processes that need it pay for it)

            _tracer = OtelTracer(component)
        except ImportError as error:
            log.warning("traces_not_sent", reason=f'{error}: install them with pip install "ragq[otel]"')
    return is_on()


def is_on() -> bool:
    """Whether this process records spans."""
    return _tracer is not None


def captures_texts() -> bool:
    """Whether spans may have the texts of questions, documents and answers."""
    return is_on() and os.environ.get(CAPTURE, "").strip().lower() == TRUE


def span(name: str, attributes: Attributes = NO_ATTRIBUTES, *, kind: Kind = "internal") -> Span:
    """A part of the current span; without one, nothing is recorded."""
    return _tracer.span(name, attributes, kind) if _tracer else NO_SPAN


def begin(
    name: str, attributes: Attributes = NO_ATTRIBUTES, *, kind: Kind, headers: Mapping[str, str] = NO_ATTRIBUTES
) -> Span:
    """A span of its own: of the trace that `traceparent` of the headers names, else of the current one, else of a new one."""
    return _tracer.begin(name, attributes, kind, headers) if _tracer else NO_SPAN


def query(statement: str) -> Span:
    """A span of a statement in PostgreSQL, named by what it does; the statement itself is left out, as are its values."""
    if not _tracer:
        return NO_SPAN
    verb = statement.split(maxsplit=1)[0].upper()
    return _tracer.span(f"{verb} postgresql", {"db.system.name": "postgresql", "db.operation.name": verb}, "client")


def record(name: str, parents: Iterable[str | None], *, started_ns: int) -> None:
    """Record spans that end now, one for each parent.

    Args:
        parents: As `traceparent`; those that are empty are left out.
        started_ns: Unix time in ns.
    """
    if _tracer:
        _tracer.record(name, parents, started_ns=started_ns)


def headers() -> dict[str, str] | None:
    """The current span as headers of a request to another server; None without one."""
    return (_tracer.headers() or None) if _tracer else None


def traceparent() -> str:
    """The current span as a line that `begin` and `record` understand in another process; "" without one."""
    return _tracer.headers().get("traceparent", "") if _tracer else ""


def fail(code: str) -> None:
    """Mark the current span as failed."""
    if _tracer:
        _tracer.fail(code)


def add_ids(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add `trace_id` and `span_id` to a log line, as a processor of structlog."""
    if _tracer:
        event.update(_tracer.ids())
    return event
