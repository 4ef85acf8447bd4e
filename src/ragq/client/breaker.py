"""A circuit breaker: stop calling a model endpoint that looks dead, and fail fast instead of waiting for it.

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
        kind: Prefix of its log events and its error code.
        name: What log lines call the endpoint.
        calls: Least number of calls in the window before it may open.
        window_seconds: How long an ended call counts.
        probe_seconds: Time between probes while it is open.
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
        self._outcomes = deque[tuple[float, bool]]()  # (end, failed) of the calls that ended in the window
        self._failures = 0  # number of failed calls in `_outcomes`
        self._is_open = False
        self._changes = 0  # a call that began before the last change of state is ignored
        self._probes = 0  # probes in flight
        self._next_probe_at = 0.0

    @property
    def state(self) -> Literal["closed", "open", "half_open"]:
        if not self._is_open:
            return "closed"
        return "half_open" if self._probes else "open"

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Let one call through and count how it ends.

        Raises:
            FaultError: It is open, and no probe is due.
        """
        self._admit()
        changes = self._changes
        failed: bool | None = None  # a cancelled call counts neither way
        try:
            yield
            failed = False
        except FaultError as fault:
            failed = _looks_dead(fault)
            raise
        finally:
            if changes == self._changes:
                self._record(failed)

    def check(self) -> None:
        """Refuse a call as `watch` would, without using up the next probe.

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
            self._next_probe_at = self._clock() + self._probe_seconds  # a probe that never ends does not block the next
            self._probes += 1

    def _record(self, failed: bool | None) -> None:
        if self._is_open:
            self._probes -= 1
            if failed is False:
                self._set_open(is_open=False)
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
            self._set_open(is_open=True)
            event = f"{self._kind}_breaker_opened"
            log.warning(event, endpoint=self._name, calls=calls, failures=failures)

    def _set_open(self, *, is_open: bool) -> None:
        self._is_open = is_open
        self._changes += 1
        self._outcomes.clear()
        self._failures = self._probes = 0
        self._next_probe_at = self._clock() + self._probe_seconds


def _looks_dead(fault: FaultError) -> bool | None:
    """Whether a fault counts against the endpoint; a refusal shows it is alive, and our own deadline shows nothing."""
    return None if fault.code == "deadline_exceeded" else fault.error is UnavailableError
