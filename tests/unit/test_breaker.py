"""The circuit breaker on a clock of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from structlog.testing import capture_logs

from ragq.client.breaker import Breaker
from ragq.client.model_faults import FaultError
from ragq.errors import OverloadedError, PermanentError, UnavailableError
from tests.clock import Clock

DEAD = FaultError(UnavailableError, "llm_timeout", "")
RATE_LIMITED = FaultError(OverloadedError, "llm_rate_limited", "")
TOO_LATE = FaultError(UnavailableError, "deadline_exceeded", "")


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("llm", "the fake", calls=20, window_seconds=30, probe_seconds=5, clock=clock)


def call(breaker: Breaker, outcome: BaseException | None = None, times: int = 1) -> None:
    """Make calls that end so; what they raise is the outcome."""
    for _ in range(times):
        try:
            with breaker.watch():
                if outcome:
                    raise outcome
        except BaseException as error:
            if error is not outcome:
                raise


@contextmanager
def failing(breaker: Breaker) -> Iterator[None]:
    """Be in flight for the time of a `with`, then fail."""
    with suppress(FaultError), breaker.watch():
        yield
        raise DEAD


def state_of(breaker: Breaker) -> str:
    return breaker.state


def is_refused(breaker: Breaker) -> bool:
    try:
        call(breaker, asyncio.CancelledError())
    except FaultError as fault:
        return fault.code == "llm_breaker_open"
    return False


def opened(breaker: Breaker) -> Breaker:
    call(breaker, DEAD, times=20)
    assert state_of(breaker) == "open"
    return breaker


def test_it_opens_when_half_of_enough_calls_failed(breaker: Breaker) -> None:
    call(breaker, times=10)
    call(breaker, DEAD, times=9)
    assert state_of(breaker) == "closed"
    call(breaker, DEAD)
    assert state_of(breaker) == "open"


def test_too_few_calls_open_nothing(breaker: Breaker) -> None:
    call(breaker, DEAD, times=19)
    assert state_of(breaker) == "closed"


def test_less_than_half_of_many_calls_opens_nothing(breaker: Breaker) -> None:
    for _ in range(1000):
        call(breaker)
        call(breaker)
        call(breaker, DEAD)
    assert state_of(breaker) == "closed"


def test_a_call_counts_for_the_window_only(breaker: Breaker, clock: Clock) -> None:
    call(breaker, DEAD, times=19)
    clock.now += 30
    call(breaker, times=11)
    call(breaker, DEAD, times=9)
    assert state_of(breaker) == "closed"
    clock.now += 29
    call(breaker, DEAD, times=2)
    assert state_of(breaker) == "open"


def test_old_successes_do_not_hide_a_dead_endpoint(breaker: Breaker, clock: Clock) -> None:
    call(breaker, times=1000)
    clock.now += 30
    call(breaker, DEAD, times=20)
    assert state_of(breaker) == "open"


def test_what_says_nothing_is_not_counted(breaker: Breaker) -> None:
    call(breaker, asyncio.CancelledError(), times=100)
    call(breaker, TOO_LATE, times=100)
    call(breaker, ValueError("the listener's"), times=100)
    assert state_of(breaker) == "closed"
    opened(breaker)
    assert state_of(breaker) == "open"


@pytest.mark.parametrize("outcome", [RATE_LIMITED, FaultError(PermanentError, "llm_bad_request", "")])
def test_a_refusal_counts_as_a_sign_of_life(breaker: Breaker, outcome: FaultError) -> None:
    call(breaker, outcome, times=21)
    call(breaker, DEAD, times=20)
    assert state_of(breaker) == "closed"


def test_while_open_it_says_when_the_next_probe_is(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 2
    with pytest.raises(FaultError) as caught, breaker.watch():
        pass
    assert caught.value.error is UnavailableError
    assert caught.value.code == "llm_breaker_open"
    assert caught.value.retry_after == 3


def test_one_probe_goes_through_every_five_seconds(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    for _ in range(3):
        clock.now += 4.9
        assert is_refused(breaker)
        clock.now += 0.1
        with failing(breaker):
            assert state_of(breaker) == "half_open"
            assert is_refused(breaker)
        assert state_of(breaker) == "open"
        assert is_refused(breaker)


@pytest.mark.parametrize("outcome", [None, RATE_LIMITED])
def test_a_probe_that_is_answered_closes_it_and_empties_the_window(
    breaker: Breaker, clock: Clock, outcome: FaultError | None
) -> None:
    opened(breaker)
    clock.now += 5
    call(breaker, outcome)
    assert state_of(breaker) == "closed"
    call(breaker, times=11)
    call(breaker, DEAD, times=9)
    assert state_of(breaker) == "closed"
    call(breaker, DEAD, times=2)
    assert state_of(breaker) == "open"


@pytest.mark.parametrize("outcome", [asyncio.CancelledError(), TOO_LATE])
def test_a_probe_that_says_nothing_is_followed_by_another(
    breaker: Breaker, clock: Clock, outcome: BaseException
) -> None:
    opened(breaker)
    clock.now += 5
    call(breaker, outcome)
    assert state_of(breaker) == "open"
    clock.now += 5
    call(breaker)
    assert state_of(breaker) == "closed"


def test_a_probe_that_hangs_is_followed_by_another(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 5
    with failing(breaker):
        clock.now += 5
        call(breaker, DEAD)
        assert state_of(breaker) == "half_open"
        clock.now += 5
        call(breaker)
        assert state_of(breaker) == "closed"
    call(breaker, DEAD, times=19)
    assert state_of(breaker) == "closed"
    call(breaker, DEAD)
    assert state_of(breaker) == "open"


def test_a_call_from_before_it_opened_neither_closes_it_nor_counts_later(breaker: Breaker, clock: Clock) -> None:
    with breaker.watch():
        opened(breaker)
    assert state_of(breaker) == "open"
    clock.now += 5
    call(breaker)
    with failing(breaker):
        opened(breaker)
        clock.now += 5
        call(breaker)
    call(breaker, DEAD, times=19)
    assert state_of(breaker) == "closed"


def test_it_logs_a_line_when_it_opens_and_one_when_it_closes(breaker: Breaker, clock: Clock) -> None:
    with capture_logs() as lines:
        opened(breaker)
        for outcome in (DEAD, None):
            clock.now += 5
            call(breaker, outcome)
        call(breaker)
    assert lines == [
        {"event": "llm_breaker_opened", "log_level": "warning", "endpoint": "the fake", "calls": 20, "failures": 20},
        {"event": "llm_breaker_closed", "log_level": "info", "endpoint": "the fake"},
    ]
