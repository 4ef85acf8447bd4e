"""Probes of servers that are slow, away, or asked about by many."""

from __future__ import annotations

import asyncio
import time

import pytest

from ragq.errors import UnavailableError
from ragq.http import readiness
from ragq.http.readiness import Readiness


async def test_a_check_that_hangs_is_told_in_time_and_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "CHECK_SECONDS", 0.1)
    calls, answer = 0, asyncio.Event()

    async def hang() -> None:
        nonlocal calls
        calls += 1
        await answer.wait()

    probes, started = Readiness(), time.monotonic()
    found = await asyncio.gather(*[probes.find_faults({"postgresql": hang}) for _ in range(50)])
    assert time.monotonic() - started < 1
    assert calls == 1
    assert all("No answer within 0.1 s" in one["postgresql"] for one in found)
    answer.set()
    assert await probes.find_faults({"postgresql": hang}) == {}


async def test_a_fault_is_told_and_soon_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "FRESH_SECONDS", 0)
    is_away = True

    async def check() -> None:
        if is_away:
            raise UnavailableError("Valkey is away.")

    probes = Readiness()
    assert await probes.find_faults({"valkey": check}) == {"valkey": "Valkey is away."}
    is_away = False
    assert await probes.find_faults({"valkey": check}) == {}
