"""What is written of a span is what OpenTelemetry's own messages read, and what the SDK would have written."""

from __future__ import annotations

from enum import StrEnum
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from ragq.tracing.otel import _KINDS, _Recorded, _Request
from ragq.tracing.otlp import encode_program

TRACE, ID, PARENT = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, 0xE457B5A2E4D86BD1
STARTED, ENDED = 1_764_451_702_000_000_001, 1_764_451_703_999_999_999
RESOURCE: dict[str, Any] = {"service.name": "ragq-api", "process.pid": 70_000, "a.list": ("x", "y")}


class Word(StrEnum):
    ONE = "one"


ATTRIBUTES: dict[str, Any] = {
    "text": "Wie hoch? 灯台" * 50,
    "word": Word.ONE,
    "empty": "",
    "yes": True,
    "no": False,
    "small": 0,
    "port": 65_535,
    "long": 2**62,
    "below": -1,
    "share": 0.25,
    "list": ["stop", "length"],
    "none": [],
}


def written(parent: SpanContext | None, kind: str = "internal", *, code: str = "", **attributes: Any) -> Any:
    """The request with a span, as a collector reads it."""
    sent: list[_Recorded] = []
    tracer: Any = SimpleNamespace(processor=SimpleNamespace(on_end=sent.append))
    context = SpanContext(TRACE, ID, False, TraceFlags(TraceFlags.SAMPLED), TraceState([("vendor", "1")]))
    span = _Recorded(tracer, "chat fake/model", attributes, kind, context, parent)  # type: ignore[arg-type]
    if code:
        span.fail(code)
    span.end(STARTED, ENDED)
    program = encode_program("ragq", "1.2", RESOURCE)
    return ExportTraceServiceRequest.FromString(_Request(program, sent).SerializePartialToString())


@pytest.mark.parametrize("remote", [None, True, False])
@pytest.mark.parametrize("kind", list(_KINDS))
def test_a_span_is_written_as_the_sdk_writes_it(kind: str, remote: bool | None) -> None:
    parent = None if remote is None else SpanContext(TRACE, PARENT, remote, TraceFlags(TraceFlags.SAMPLED))
    context = SpanContext(TRACE, ID, False, TraceFlags(TraceFlags.SAMPLED), TraceState([("vendor", "1")]))
    theirs = ReadableSpan(
        "chat fake/model",
        context,
        parent,
        Resource(RESOURCE),
        {**ATTRIBUTES, "error.type": "llm_bad_request"},
        kind=getattr(SpanKind, kind.upper()),
        status=Status(StatusCode.ERROR),
        start_time=STARTED,
        end_time=ENDED,
        instrumentation_scope=InstrumentationScope("ragq", "1.2"),
    )
    assert written(parent, kind, code="llm_bad_request", **ATTRIBUTES) == encode_spans([theirs])


def test_what_has_no_value_is_left_out_and_what_has_no_form_in_utf_8_is_replaced() -> None:
    (span,) = written(None, temperature=None, word="a\ud800b").resource_spans[0].scope_spans[0].spans
    assert [(one.key, one.value.string_value) for one in span.attributes] == [("word", "a?b")]
    assert not span.HasField("status")
