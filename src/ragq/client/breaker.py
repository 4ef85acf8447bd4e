"""Spare a served model that looks dead, and the jobs that would wait for it.

closed ── half of the calls in the window failed ──▶ open ⇄ half_open (a probe is in flight)
   ◀──────────────────── a probe succeeds ────────────────────┘
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import structlog

from ragq.client.model_faults import FaultError, Kind
from ragq.errors import UnavailableError

log = structlog.get_logger(__name__)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


class Breaker:
    """A circuit breaker for one endpoint and model.

    Args:
        kind: Of which its log lines and its error are named.
        name: What log lines call the endpoint.
        calls: So many calls must have ended in the window before it may open.
        window_seconds: How long the end of a call counts.
        probe_seconds: While it is open, one call is let through this often.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        kind: Kind,
        name: str,
        *,
        calls: int,
        window_seconds: float,
        probe_seconds: float,
        clock: Callable[[], float] = _loop_time,
    ) -> None:
        self._kind, self._name, self._calls, self._clock = kind, name, calls, clock
        self._window_seconds, self._probe_seconds = window_seconds, probe_seconds
        self._outcomes = deque[tuple[float, bool]]()  # calls that ended in the window: when, and whether they failed
        self._failures = 0  # among them
        self._is_open = False
        self._turns = 0  # a call that began before the last turn says nothing about the time after it
        self._probes = 0  # in flight
        self._next_probe_at = 0.0

    @property
    def state(self) -> Literal["closed", "open", "half_open"]:
        if not self._is_open:
            return "closed"
        return "half_open" if self._probes else "open"

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Let one call through, and learn from how it ends.

        Raises:
            FaultError: It is open, and no probe is due.
        """
        self._admit()
        turn = self._turns
        failed: bool | None = None  # a call that was cancelled says nothing
        try:
            yield
            failed = False
        except FaultError as fault:
            failed = _looks_dead(fault)
            raise
        finally:
            if turn == self._turns:
                self._learn(failed)

    def check(self) -> None:
        """Refuse, as `watch` would, without taking a probe's turn.

        Raises:
            FaultError: It is open, and no probe is due.
        """
        wait = self._next_probe_at - self._clock() if self._is_open else 0
        if wait > 0:
            reason = f"its circuit breaker is open, next probe in {wait:.1f} s"
            raise FaultError(UnavailableError, f"{self._kind}_breaker_open", reason, retry_after=wait)

    def _admit(self) -> None:
        self.check()
        if self._is_open:
            self._next_probe_at = self._clock() + self._probe_seconds  # by the clock: a lost probe blocks nothing
            self._probes += 1

    def _learn(self, failed: bool | None) -> None:
        if self._is_open:
            self._probes -= 1
            if failed is False:
                self._turn(is_open=False)
                event = f"{self._kind}_breaker_closed"
                log.info(event, endpoint=self._name)
        elif failed is not None:
            self._count(failed)

    def _count(self, failed: bool) -> None:
        now = self._clock()
        self._outcomes.append((now, failed))
        self._failures += failed
        while self._outcomes[0][0] <= now - self._window_seconds:
            self._failures -= self._outcomes.popleft()[1]
        calls, failures = len(self._outcomes), self._failures
        if calls >= self._calls and failures * 2 >= calls:
            self._turn(is_open=True)
            event = f"{self._kind}_breaker_opened"
            log.warning(event, endpoint=self._name, calls=calls, failures=failures)

    def _turn(self, *, is_open: bool) -> None:
        self._is_open = is_open
        self._turns += 1
        self._outcomes.clear()
        self._failures = self._probes = 0
        self._next_probe_at = self._clock() + self._probe_seconds


def _looks_dead(fault: FaultError) -> bool | None:
    """Judge the endpoint by a fault: a refusal is a sign of life, our own deadline is no sign."""
    return None if fault.code == "deadline_exceeded" else fault.error is UnavailableError
