"""Spans for OpenTelemetry's SDK; imported only when traces are wanted.

The SDK samples, batches and sends, and reads its own variables: sampler, resource, endpoint, headers, certificates and batches. A span is our
own object, since the SDK guards each one against many threads and against attributes of any type, and `otlp.py` writes it, in the thread that sends.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ragq import __version__
from ragq.tracing.otlp import encode_program, encode_request, encode_span
from ragq.tracing.spans import NO_SPAN, Attributes, Kind, Span

_KINDS: Final[Mapping[Kind, SpanKind]] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
EXIT_SECONDS: Final = 2.0  # how long a process that exits tries to send its last spans
_W3C: Final = TraceContextTextMapPropagator()


class _Recorded(Span):
    """A span; the current one in its block. Errors are noted by code, since their words may quote a text.

    Attributes:
        context: Its ids, and whether it is sampled: others are not sent, but tell the next process so.
    """

    __slots__ = ("_attributes", "_before", "_failed", "_kind", "_name", "_parent", "_times", "_tracer", "context")

    def __init__(
        self,
        tracer: OtelTracer,
        name: str,
        attributes: Attributes,
        kind: Kind,
        context: SpanContext,
        parent: SpanContext | None,
    ) -> None:
        self._tracer, self._name, self._kind, self.context, self._parent = tracer, name, kind, context, parent
        self._attributes: dict[str, Any] = dict(attributes)
        self._failed, self._times = False, (time.time_ns(), 0)

    def __enter__(self) -> Self:
        self._before = _current.get()
        _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.set(self._before)
        if error is not None:
            self.fail(getattr(error, "code", None) or type(error).__name__)
        self.end(self._times[0], time.time_ns())

    def end(self, started_ns: int, ended_ns: int) -> None:
        """Send it, if it is sampled."""
        if self.context.trace_flags.sampled:
            self._times = (started_ns, ended_ns)
            self._tracer.processor.on_end(cast("ReadableSpan", self))  # it reads the context alone

    def encode(self) -> bytes:
        """Write it as OTLP has it."""
        context, parent = self.context, self._parent
        return encode_span(
            (context.trace_id, context.span_id),
            (parent.span_id, parent.is_remote) if parent else None,
            context.trace_state.to_header() if context.trace_state else "",
            self._name,
            _KINDS[self._kind].value + 1,  # OTLP's 0 is unknown
            self._times,
            self._attributes,
            failed=self._failed,
        )

    def set(self, attributes: Attributes) -> None:
        self._attributes.update(attributes)

    def rename(self, name: str) -> None:
        self._name = name

    def fail(self, code: str) -> None:
        self._attributes["error.type"], self._failed = code, True


_current: ContextVar[_Recorded | None] = ContextVar("span", default=None)


class _Request:
    """What the SDK's exporter takes for its own message, and sends: it only asks for the bytes."""

    def __init__(self, program: tuple[bytes, bytes], spans: Iterable[_Recorded]) -> None:
        self._bytes = encode_request(program, [span.encode() for span in spans])

    def SerializePartialToString(self) -> bytes:  # noqa: N802  (protobuf's name)
        return self._bytes


class OtelTracer:
    """Makes spans, and sends them to the collector from a thread of its own.

    Args:
        component: Part of the default name of the service, `ragq-api` or `ragq-worker`.
    """

    def __init__(self, component: str) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME") or f"ragq-{component}"
        facts = {"service.name": name, "service.version": __version__, "service.instance.id": str(os.getpid())}
        resource = Resource.create(facts)
        program = encode_program("ragq", __version__, resource.attributes)
        vars(trace_exporter)["encode_spans"] = partial(_Request, program)
        self.processor = BatchSpanProcessor(trace_exporter.OTLPSpanExporter())
        sampler = TracerProvider(resource=resource, shutdown_on_exit=False).sampler  # as the variables say
        self._sampler, self._ids = sampler, RandomIdGenerator()
        _end_at_exit(self.processor)

    def span(self, name: str, attributes: Attributes, kind: Kind) -> Span:
        above = _current.get()
        if above is None or not above.context.trace_flags.sampled:
            return NO_SPAN
        return self._below(above.context, name, attributes, kind)

    def begin(self, name: str, attributes: Attributes, kind: Kind, headers: Mapping[str, str]) -> Span:
        if headers.get("traceparent"):
            parent = _read(headers)
        else:
            above = _current.get()
            parent = above.context if above else None
        return self._sampled(parent, name, attributes, kind)

    def _sampled(self, parent: SpanContext | None, name: str, attributes: Attributes, kind: Kind) -> _Recorded:
        """A span about which the sampler decides: of its parent's trace, or of a new one."""
        over = trace.set_span_in_context(trace.NonRecordingSpan(parent), Context()) if parent else Context()
        trace_id = parent.trace_id if parent else self._ids.generate_trace_id()
        result = self._sampler.should_sample(over, trace_id, name, _KINDS[kind], attributes)
        flags = TraceFlags(TraceFlags.SAMPLED if result.decision is Decision.RECORD_AND_SAMPLE else TraceFlags.DEFAULT)
        context = SpanContext(trace_id, self._ids.generate_span_id(), False, flags, result.trace_state)
        return _Recorded(self, name, attributes, kind, context, parent)

    def _below(self, parent: SpanContext, name: str, attributes: Attributes, kind: Kind) -> _Recorded:
        ids = (parent.trace_id, self._ids.generate_span_id())
        context = SpanContext(*ids, False, parent.trace_flags, parent.trace_state)
        return _Recorded(self, name, attributes, kind, context, parent)

    def record(self, name: str, parents: Iterable[str | None], *, started_ns: int) -> None:
        ended_ns = time.time_ns()
        for line in filter(None, parents):
            if (parent := _read({"traceparent": line})) and parent.trace_flags.sampled:
                self._below(parent, name, {}, "internal").end(started_ns, ended_ns)

    def headers(self) -> dict[str, str]:
        if (found := _current.get()) is None:
            return {}
        context, state = found.context, found.context.trace_state.to_header()
        line = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        return {"traceparent": line} | ({"tracestate": state} if state else {})

    def fail(self, code: str) -> None:
        if found := _current.get():
            found.fail(code)

    def ids(self) -> dict[str, str]:
        if (found := _current.get()) is None:
            return {}
        return {"trace_id": f"{found.context.trace_id:032x}", "span_id": f"{found.context.span_id:016x}"}


def _end_at_exit(processor: BatchSpanProcessor) -> None:
    """Send what is left when the process exits, for a moment only: the SDK would wait up to 30 s for a silent collector."""
    exiting = threading.Event()

    def end() -> None:
        exiting.wait()
        processor.shutdown()  # type: ignore[no-untyped-call]

    thread = threading.Thread(target=end, name="last_spans", daemon=True)  # none can be started at exit
    thread.start()

    @atexit.register
    def wait() -> None:
        exiting.set()
        thread.join(EXIT_SECONDS)


def _read(headers: Mapping[str, str]) -> SpanContext | None:
    """The span that `traceparent` and `tracestate` name; None if they are malformed."""
    found = trace.get_current_span(_W3C.extract(headers, Context())).get_span_context()
    return found if found.is_valid else None
