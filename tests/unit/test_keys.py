"""Guesses of the API key, with a clock that tests move."""

from __future__ import annotations

import pytest

from ragq.errors import AuthenticationError, OverloadedError
from ragq.http import keys
from ragq.http.keys import GUESS_SECONDS, GUESSES, KNOWN_SECONDS, KeyCheck
from tests.clock import Clock

KEY = "a key that only this test knows"


def guess(check: KeyCheck, host: str, *, times: int = GUESSES) -> None:
    for number in range(times):
        with pytest.raises(AuthenticationError):
            check.check(f"guess {number}", host)


def is_let_in(check: KeyCheck, host: str) -> bool:
    try:
        check.check(check.key, host)
    except OverloadedError:
        return False
    return True


@pytest.mark.parametrize(
    ("guesser", "neighbour", "is_slowed"),
    [
        ("192.0.2.7", "192.0.2.8", False),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.8", False),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_guesses_count_for_the_network_of_one_client(
    clock: Clock, guesser: str, neighbour: str, *, is_slowed: bool
) -> None:
    check = KeyCheck(KEY, clock)
    guess(check, guesser)
    assert is_let_in(check, neighbour) is not is_slowed


def test_the_right_key_is_taken_again_soon_after_the_guesses_end(clock: Clock) -> None:
    check = KeyCheck(KEY, clock)
    guess(check, "192.0.2.7")
    for _ in range(1000):
        with pytest.raises(OverloadedError) as refusal:
            check.check("guess", "192.0.2.7")
        assert refusal.value.retry_after_seconds == pytest.approx(GUESS_SECONDS)
    clock.now += GUESS_SECONDS
    assert is_let_in(check, "192.0.2.7")


@pytest.mark.parametrize(("key", "is_excepted"), [(KEY, True), ("short", False)])
def test_only_a_long_key_is_compared_for_an_address_that_had_it_in_the_last_hour(
    clock: Clock, key: str, *, is_excepted: bool
) -> None:
    check = KeyCheck(key, clock)
    assert is_let_in(check, "192.0.2.7")
    guess(check, "192.0.2.7")
    assert is_let_in(check, "192.0.2.7") is is_excepted
    clock.now += KNOWN_SECONDS
    guess(check, "192.0.2.7")
    assert not is_let_in(check, "192.0.2.7")


def test_a_request_without_a_key_is_no_guess(clock: Clock) -> None:
    check = KeyCheck(KEY, clock)
    for _ in range(100):
        with pytest.raises(AuthenticationError):
            check.check("", "192.0.2.7")
    assert is_let_in(check, "192.0.2.7")


def test_no_more_than_so_many_addresses_are_remembered(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MAX_ADDRESSES", 3)
    check = KeyCheck(KEY, clock)
    for number in range(10):
        guess(check, f"192.0.2.{number}", times=1)
    assert list(check._addresses) == ["192.0.2.7", "192.0.2.8", "192.0.2.9"]
