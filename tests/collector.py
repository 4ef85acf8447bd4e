"""An OpenTelemetry collector for tests: it reads OTLP over HTTP with OpenTelemetry's own messages. It also takes webhooks and reranks."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

FAILED = 2  # of OTLP's status codes


@dataclass(frozen=True)
class SeenSpan:
    """A span as it arrived; ids are hexadecimal, times Unix times in ns."""

    service: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    started: int
    ended: int
    failed: bool
    attributes: dict[str, Any]


@dataclass
class Collector:
    """What has arrived: spans, and the headers of other requests by path.

    Attributes:
        reads: Spans are read as they arrive; else `read_all` reads them, so that it takes no time from what sends them.
    """

    url: str = ""
    reads: bool = True
    spans: list[SeenSpan] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def of(self, trace: str) -> list[SeenSpan]:
        return [span for span in self.spans if span.trace == trace]

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        if self.reads:
            self._read(body)

    def read_all(self) -> None:
        """Read what has arrived."""
        for body in self.bodies:
            self._read(body)

    def _read(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _values(resource.resource.attributes)["service.name"]
            self.spans += [
                SeenSpan(
                    service,
                    span.name,
                    span.kind,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code == FAILED,
                    _values(span.attributes),
                )
                for scope in resource.scope_spans
                for span in scope.spans
            ]

    def answer(self, path: str, body: bytes) -> tuple[str, bytes]:
        if path == "/v1/traces":
            self.take(body)
            return "application/x-protobuf", ExportTraceServiceResponse().SerializeToString()
        if path == "/rerank":
            count = len(json.loads(body)["documents"])
            rows = [{"index": place, "relevance_score": 1 / (1 + place)} for place in range(count)]
            return "application/json", json.dumps({"results": rows}).encode()
        return "text/plain", b""


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)


@contextmanager
def running_collector(*, reads: bool = True) -> Iterator[Collector]:
    collector = Collector(reads=reads)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            named = {name.lower(): value for name, value in self.headers.items()}
            collector.headers.setdefault(self.path, []).append(named)
            kind, answer = collector.answer(self.path, body)
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
