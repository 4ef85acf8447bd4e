"""API keys: guesses of them, those that were made, and sessions, with a clock that tests move."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ragq.accounts.limits import NO_LIMITS
from ragq.accounts.roles import Role
from ragq.errors import AuthenticationError, ForbiddenError, OverloadedError, UnavailableError
from ragq.http import keys, session
from ragq.http.callers import FRESH_SECONDS, STALE_SECONDS, Caller, Callers
from ragq.http.keys import GUESS_SECONDS, GUESSES, KNOWN_SECONDS, LOOK_UPS, KeyCheck
from ragq.storage.tenancy.api_keys import OpenedKey
from ragq.storage.tenancy.sessions import OpenedSession
from tests.clock import Clock

KEY = "a key that only this test knows"


def guess(check: KeyCheck, host: str, *, times: int = GUESSES) -> None:
    for number in range(times):
        with pytest.raises(AuthenticationError):
            asyncio.run(check.check(f"guess {number}", host))


def is_let_in(check: KeyCheck, host: str, key: str = KEY) -> bool:
    try:
        asyncio.run(check.check(key, host))
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
    check = KeyCheck(KEY, Callers(), clock)
    guess(check, guesser)
    assert is_let_in(check, neighbour) is not is_slowed


def test_the_right_key_is_taken_again_soon_after_the_guesses_end(clock: Clock) -> None:
    check = KeyCheck(KEY, Callers(), clock)
    guess(check, "192.0.2.7")
    for _ in range(1000):
        with pytest.raises(OverloadedError) as refusal:
            asyncio.run(check.check("guess", "192.0.2.7"))
        assert refusal.value.retry_after_seconds == pytest.approx(GUESS_SECONDS)
    clock.now += GUESS_SECONDS
    assert is_let_in(check, "192.0.2.7")


@pytest.mark.parametrize(("key", "is_excepted"), [(KEY, True), ("short", False)])
def test_only_a_long_key_is_compared_for_an_address_that_had_it_in_the_last_hour(
    clock: Clock, key: str, *, is_excepted: bool
) -> None:
    check = KeyCheck(key, Callers(), clock)
    assert is_let_in(check, "192.0.2.7", key)
    guess(check, "192.0.2.7")
    assert is_let_in(check, "192.0.2.7", key) is is_excepted
    clock.now += KNOWN_SECONDS
    guess(check, "192.0.2.7")
    assert not is_let_in(check, "192.0.2.7", key)


def test_a_request_without_a_key_is_no_guess(clock: Clock) -> None:
    check = KeyCheck(KEY, Callers(), clock)
    for _ in range(100):
        with pytest.raises(AuthenticationError):
            asyncio.run(check.check("", "192.0.2.7"))
    assert is_let_in(check, "192.0.2.7")


def test_no_more_than_so_many_addresses_are_remembered(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MAX_ADDRESSES", 3)
    check = KeyCheck(KEY, Callers(), clock)
    for number in range(10):
        guess(check, f"192.0.2.{number}", times=1)
    assert list(check._addresses) == ["192.0.2.7", "192.0.2.8", "192.0.2.9"]


MADE = OpenedKey("key_1", "acme", "user", is_suspended=False)


class Store:
    """Has one key, and may be away; counts how often it is asked."""

    def __init__(self) -> None:
        self.key: OpenedKey | None = MADE
        self.is_away = False
        self.asked = 0

    async def open(self, value: str) -> OpenedKey | None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise UnavailableError("away")
        return self.key if value == VALUE else None

    async def open_id(self, key_id: str) -> OpenedKey | None:
        return await self.open(VALUE if self.key and key_id == self.key.id else "")


VALUE = "ragq-a-key-that-was-made"


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def check(store: Store, clock: Clock) -> KeyCheck:
    return KeyCheck(KEY, Callers(store, clock), clock)


def find(check: KeyCheck, value: str = VALUE) -> Caller:
    return asyncio.run(check.check(value, "192.0.2.7"))


def test_a_key_that_was_made_is_its_tenants_and_is_looked_up_once_in_a_while(
    check: KeyCheck, store: Store, clock: Clock
) -> None:
    for _ in range(3):
        assert find(check) == Caller("acme", Role.USER, "key_1", own_only=False)
    assert store.asked == 1
    clock.now += FRESH_SECONDS
    store.key = None
    with pytest.raises(AuthenticationError):
        find(check)


def test_keys_that_were_found_lately_go_on_while_the_database_is_away(
    check: KeyCheck, store: Store, clock: Clock
) -> None:
    find(check)
    store.is_away = True
    clock.now += STALE_SECONDS - 1
    assert find(check).tenant == "acme"
    clock.now += 1
    for value in (VALUE, "ragq-another"):
        with pytest.raises(UnavailableError):  # not a 401, after which a client would throw its key away
            find(check, value)


@pytest.mark.parametrize(
    ("tenant", "role", "found"),
    [("acme", "admin", Role.ADMIN), ("default", "admin", Role.OPERATOR), ("default", "user", Role.USER)],
)
def test_only_an_admin_of_the_default_tenant_is_the_operator(
    check: KeyCheck, store: Store, tenant: str, role: str, found: Role
) -> None:
    store.key = replace(MADE, tenant_id=tenant, role=role)
    assert find(check).role is found
    assert find(check, KEY) == Caller("default", Role.OPERATOR)


def test_a_suspended_tenants_key_is_refused_without_counting_as_a_guess(check: KeyCheck, store: Store) -> None:
    store.key = replace(MADE, is_suspended=True)
    for _ in range(GUESSES + 1):
        with pytest.raises(ForbiddenError) as refusal:
            find(check)
    assert refusal.value.code == "tenant_suspended"
    assert [(event.code, times) for event, times in check.tally._counts.items()] == [("tenant_suspended", GUESSES + 1)]


async def check_at_once(check: KeyCheck, value: str, *, times: int) -> list[Caller | BaseException]:
    checks = [check.check(value, "192.0.2.7") for _ in range(times)]
    return await asyncio.gather(*checks, return_exceptions=True)


def test_of_wrong_keys_that_come_at_once_no_more_count_than_one_by_one(check: KeyCheck, clock: Clock) -> None:
    refusals = asyncio.run(check_at_once(check, "ragq-guessed", times=500))
    kinds = [type(refusal) for refusal in refusals]
    assert (kinds.count(AuthenticationError), kinds.count(OverloadedError)) == (GUESSES, 500 - GUESSES)
    assert not is_let_in(check, "192.0.2.7")
    clock.now += GUESS_SECONDS
    assert is_let_in(check, "192.0.2.7")


def test_right_keys_that_come_at_once_are_let_in_by_one_look(check: KeyCheck, store: Store, clock: Clock) -> None:
    for _ in range(2):
        found = asyncio.run(check_at_once(check, VALUE, times=10 * GUESSES))
        assert {type(caller) for caller in found} == {Caller}
        clock.now += FRESH_SECONDS
    assert store.asked == 2


async def test_a_client_that_leaves_takes_the_answer_from_no_other(check: KeyCheck, store: Store) -> None:
    first, second = (asyncio.create_task(check.check(VALUE, "192.0.2.7")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).tenant == "acme"
    assert first.cancelled()
    assert store.asked == 1


class SlowStore(Store):
    """Answers when it may; counts how many look-ups wait, by what they ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()
        self.waiting: list[str] = []

    async def open(self, value: str) -> OpenedKey | None:
        self.waiting.append(value)
        await self.may_answer.wait()
        return await super().open(value)


async def until_nothing_moves() -> None:
    for _ in range(2000):
        await asyncio.sleep(0)


async def test_unknown_keys_of_an_address_are_looked_up_a_few_at_a_time_and_hold_up_no_others(clock: Clock) -> None:
    store = SlowStore()
    check = KeyCheck(KEY, Callers(store, clock), clock)
    store.may_answer.set()
    await check.check(VALUE, "192.0.2.7")
    store.may_answer.clear()
    store.waiting.clear()
    guesses = [asyncio.create_task(check.check(f"ragq-guess-{n}", "192.0.2.8")) for n in range(500)]
    await until_nothing_moves()
    assert len(store.waiting) == LOOK_UPS
    assert (await check.check(VALUE, "192.0.2.8")).tenant == "acme"  # remembered
    assert (await check.check(KEY, "192.0.2.8")).role is Role.OPERATOR
    elsewhere = asyncio.create_task(check.check("ragq-other", "192.0.2.9"))
    clock.now += FRESH_SECONDS
    again = asyncio.create_task(check.check(VALUE, "192.0.2.8"))  # to be asked for again, but no unknown one
    await until_nothing_moves()
    assert store.waiting[LOOK_UPS:] == ["ragq-other", VALUE]
    store.may_answer.set()
    assert (await again).tenant == "acme"
    refusals = await asyncio.gather(*guesses, elsewhere, return_exceptions=True)
    assert {type(refusal) for refusal in refusals} == {AuthenticationError, OverloadedError}


def test_without_a_key_in_the_settings_only_keys_that_were_made_are_checked(store: Store, clock: Clock) -> None:
    check = KeyCheck(None, Callers(store, clock), clock)
    assert find(check, "sk-anything").role is find(check, "").role is Role.OPERATOR
    assert find(check).tenant == "acme"
    with pytest.raises(AuthenticationError):
        find(check, "ragq-revoked")


def test_a_session_is_that_of_its_key_and_ends_with_it(
    check: KeyCheck, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragq.http.session.time.time", lambda: 1_000_000.0)
    of_key, of_root = check.open_session(find(check)), check.open_session(find(check, KEY))
    assert asyncio.run(check.check_session(of_key)) == Caller("acme", Role.USER, "key_1", own_only=False)
    assert asyncio.run(check.check_session(of_root)).role is Role.OPERATOR
    clock.now += FRESH_SECONDS
    store.key = None
    forged = of_root.replace("..", ".key_1.")
    for cookie in (of_key, forged, "", ".", "..", "x.y.z", of_root[:-1]):
        with pytest.raises(AuthenticationError):
            asyncio.run(check.check_session(cookie))
    monkeypatch.setattr("ragq.http.session.time.time", lambda: 1_000_000.0 + session.SESSION_SECONDS)
    with pytest.raises(AuthenticationError):
        asyncio.run(check.check_session(of_root))


TOKEN = "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmVk"
READER = OpenedSession(
    id="",
    tenant_id="acme",
    role="reader",
    issuer="https://id.example",
    subject="u-1",
    name="Ada",
    is_suspended=False,
    groups=(),
    limits=NO_LIMITS,
    has_readers=False,
    has_shares=False,
)


class Tokens:
    """Takes every token, as the provider does those that it made."""

    def __init__(self, opened: OpenedSession = READER) -> None:
        self._opened = opened

    async def open(self, _token: str) -> OpenedSession:
        return self._opened


def test_an_access_token_opens_no_session(store: Store, clock: Clock) -> None:
    callers = Callers(store, clock)
    callers.tokens = Tokens()
    check = KeyCheck(KEY, callers, clock)
    reader = find(check, TOKEN)
    assert (reader.tenant, reader.role) == ("acme", Role.READER)
    with pytest.raises(AuthenticationError):
        check.open_session(reader)


def test_a_person_is_another_one_at_another_provider(store: Store, clock: Clock) -> None:
    def find_owner(issuer: str, subject: str) -> str:
        callers = Callers(store, clock)
        callers.tokens = Tokens(replace(READER, issuer=issuer, subject=subject))
        return find(KeyCheck(KEY, callers, clock), TOKEN).owner_id

    owners = [find_owner(f"https://{issuer}.example", subject) for issuer in "ab" for subject in ("u-1", "u-2")]
    assert len(set(owners)) == 4
    assert all(owner.startswith("person:") for owner in owners)
    assert find_owner("https://a.example", "u-1") == owners[0]


def test_only_the_key_of_the_settings_is_the_operators_without_an_id(check: KeyCheck) -> None:
    """A caller whom nothing can confirm is refused, rather than taken for the operator."""
    assert asyncio.run(check.confirm(find(check, KEY))).role is Role.OPERATOR
    with pytest.raises(AuthenticationError):
        asyncio.run(check.confirm(Caller("acme", Role.READER)))
    with pytest.raises(AuthenticationError):
        check.open_session(Caller("acme", Role.READER))
