"""Limits as they are written: durations, the options of the commands, and prices."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from ragq.accounts.limits import say_seconds
from ragq.accounts.usage import Price, read_prices
from ragq.admin import limit_commands
from ragq.cli import main
from ragq.errors import ConfigurationError
from ragq.settings import read_settings


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0ms"), (0.02, "20ms"), (1, "1s"), (1.5, "1.5s"), (60, "1m0s"), (360, "6m0s"), (7203.25, "2h0m3s")],
)
def test_durations_are_written_as_openai_does(seconds: float, said: str) -> None:
    assert say_seconds(seconds) == said


def test_none_removes_a_limit_and_what_is_left_out_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []

    def call(_url: str | None, method: str, path: str, **options: object) -> dict[str, object]:
        sent.append((method, path, options))
        return {"queued": 7}

    monkeypatch.setattr(limit_commands, "call", call)
    done = CliRunner().invoke(main, ["tenants", "limit", "acme", "--queued", "7", "--cost-per-month", "none"])
    assert done.output == "Tenant acme: 7 questions queued at once.\n"
    body = {"queued": 7, "cost_per_month": None}
    assert sent == [("POST", "/v1/admin/tenants/acme/limits", {"json": body})]
    assert CliRunner().invoke(main, ["tenants", "limit", "acme", "--queued", "many"]).exit_code == 2


def test_prices_are_read_and_wrong_ones_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_prices("") == {}
    assert read_prices(json.dumps({"a": {"input": 1.5}})) == {"a": Price(1.5, 0)}
    read_settings.cache_clear()
    for wrong in ("{", '{"a": {"input": -1}}', '{"a": {"inputs": 1}}', "[]"):
        monkeypatch.setenv("RAGQ_PRICES", wrong)
        with pytest.raises(ConfigurationError, match="RAGQ_PRICES"):
            read_settings()
