"""Traces are off unless a collector is named, and then nothing is recorded."""

from __future__ import annotations

import sys

import pytest
from structlog.testing import capture_logs

from ragq import tracing
from ragq.tracing.spans import NO_SPAN

COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        (COLLECTOR, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        (COLLECTOR | {"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (COLLECTOR | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (COLLECTOR | {"OTEL_SDK_DISABLED": "True"}, False),
        (COLLECTOR | {"OTEL_SDK_DISABLED": "false"}, True),
    ],
)
def test_a_named_collector_alone_turns_traces_on(
    variables: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED", *tracing.ENDPOINTS):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing.is_wanted() is expected


def test_a_process_without_traces_records_nothing() -> None:
    assert not tracing.is_on()
    with tracing.begin("a", kind="server") as outer, tracing.span("b") as inner, tracing.query("SELECT 1") as query:
        assert outer is inner is query is NO_SPAN
        assert (tracing.traceparent(), tracing.headers()) == ("", None)
        assert tracing.add_ids(None, "info", {"event": "x"}) == {"event": "x"}


def test_without_the_sdk_a_process_starts_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "ragq.tracing.otel", None)
    with capture_logs() as lines:
        assert tracing.start_tracing("worker") is False
    assert [line["event"] for line in lines] == ["traces_not_sent"]
    assert "ragq[otel]" in lines[0]["reason"]
