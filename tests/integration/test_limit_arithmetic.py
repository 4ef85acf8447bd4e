"""The arithmetic of requests a minute and tokens a day, in Valkey's own Lua, with a clock that the test moves."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import redis
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from ragq.client.scripts import SCRIPTS
from tests.servers import Valkey

MINUTE = 60_000.0
START = 1_800_000_000_000  # ms since 1970

# Each run is one script, which takes the pauses one after the other and says of each request: {refused, ms to wait, left}.
CLOCK = "local time = redis.call('TIME')\nlocal now = time[1] * 1000 + math.floor(time[2] / 1000)\n"
COMMON, LIMITS, SET_TOKENS = ((SCRIPTS / f"{name}.lua").read_text() for name in ("common", "limits", "set_tokens"))
RUN = """
local said = {}
redis.call('DEL', P .. ':limit:requests:t:a')
for _, pause in ipairs(cjson.decode(ARGV[2])) do
    now = now + pause
    local limits = {scopes = {{scope = 't:a', requests = tonumber(ARGV[3])}}, is_counted = false}
    local why, retry_ms, left = admit(limits, 1000)
    said[#said + 1] = {now, why and 1 or 0, retry_ms or 0, left[3], left[4]}
end
return said
"""
assert CLOCK in COMMON
AT_START = COMMON.replace(CLOCK, f"local now = {START}\n") + LIMITS
SCRIPT = AT_START + RUN
TODAY = START // 86_400_000  # days since 1970

Said = list[tuple[int, int, int, int, int]]  # time, whether refused, ms to wait, requests left, ms until all are left
PAUSES = st.lists(
    st.one_of(st.just(0), st.integers(1, 50), st.integers(50, 5000), st.integers(30_000, 90_000)), max_size=80
)
RATES = st.one_of(st.integers(1, 12), st.integers(13, 7000))


def run(valkey: redis.Redis, pauses: list[int], rate: int) -> Said:
    found: Said = valkey.eval(SCRIPT, 0, "test", json.dumps(pauses), rate)
    return found


@profile(max_examples=150, deadline=None)
@given(pauses=PAUSES, rate=RATES)
def test_a_minute_has_the_requests_of_its_limit_and_what_is_refused_may_come_when_it_is_told(
    valkey: Valkey, pauses: list[int], rate: int
) -> None:
    with valkey.connect() as connection:
        said = run(connection, pauses, rate)
        taken = [now for now, refused, *_ in said if not refused]
        for first, start in enumerate(taken):  # a burst of the limit, and then its rate
            for last, end in enumerate(taken[first:], first):
                assert last - first + 1 <= rate + (end - start) * rate / MINUTE + 0.01
        for place, (now, refused, wait, left, reset) in enumerate(said):
            recent = [at for at, was_refused, *_ in said[:place] if not was_refused and at > now - MINUTE]
            assert bool(refused) <= (len(recent) >= rate)  # nobody is refused who sent fewer in the last minute
            assert 0 <= left <= rate - (not refused)
            assert 0 <= reset <= MINUTE + 1
            if refused:
                (*_, again) = run(connection, [*pauses[: place + 1], wait], rate)
                assert not again[1]
                early = run(connection, [*pauses[: place + 1], max(0, wait - 2)], rate)[-1]
                assert early[1]
                break


def test_the_last_requests_left_are_told_truly(valkey: Valkey) -> None:
    with valkey.connect() as connection:
        said = run(connection, [0] * 8, 7)
    assert [left for *_, left, _ in said] == [6, 5, 4, 3, 2, 1, 0, 0]
    assert [bool(refused) for _, refused, *_ in said] == [False] * 7 + [True]
    assert all(later > earlier for earlier, later in pairwise(reset for *_, reset in said[:7]))


@pytest.mark.parametrize(
    ("counted", "of_day", "tokens", "result"),
    [
        (None, TODAY, 30, 30),
        (20, TODAY, 30, 30),
        (50, TODAY, 30, 50),  # jobs have ended that PostgreSQL has not added up
        (None, TODAY - 1, 30, None),  # midnight has passed since they were added up
        (5, TODAY - 1, 30, 5),
    ],
)
def test_a_new_limit_never_takes_back_what_is_counted_of_a_day(
    valkey: Valkey, counted: int | None, of_day: int, tokens: int, result: int | None
) -> None:
    name = f"test:limit:tokens:{TODAY}:t:a"
    with valkey.connect() as connection:
        connection.delete(name)
        if counted is not None:
            connection.set(name, counted)
        connection.eval(AT_START + SET_TOKENS, 0, "test", "t:a", tokens, of_day)
        found = connection.get(name)
    assert found == (None if result is None else str(result).encode())
