"""Check API keys in constant time, and slow down guesses."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial

from ragq.errors import AuthenticationError, ForbiddenError, OverloadedError
from ragq.http.access_tokens import is_token
from ragq.http.audit import Tally
from ragq.http.callers import ROOT, Caller, Callers
from ragq.http.session import open_session, read_session
from ragq.settings import LEAST_KEY_CHARACTERS
from ragq.storage.tenancy.api_keys import KEY_PREFIX
from ragq.storage.tenancy.sessions import SESSION_PREFIX

GUESSES = 10  # wrong keys that an address may send at once
GUESS_SECONDS = 6.0  # after which it may send one more
KNOWN_SECONDS = 3600.0  # an address that sent the right key is remembered this long
MAX_ADDRESSES = 10_000
LOOK_UPS = 4  # of unknown keys of one address at a time; PostgreSQL is asked over ten connections


@dataclass(slots=True)
class _Address:
    """The keys sent from an address.

    Attributes:
        guesses: Wrong keys, minus one for each GUESS_SECONDS since `changed_at`; at most GUESSES.
    """

    guesses: float = 0.0
    changed_at: float = 0.0
    known_until: float = -math.inf
    turns: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, LOOK_UPS))

    @property
    def is_over(self) -> bool:
        """Whether it may send no other wrong key now."""
        return self.guesses > GUESSES - 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until fewer than LOOK_UPS keys of this address are looked up."""
        async with self.turns:
            yield


class KeyCheck:
    """Compares keys with `RAGQ_API_KEY`, and looks up those that were made.

    After GUESSES wrong keys from one address, its keys are refused without a comparison until GUESS_SECONDS have passed.
    An address that sent the right key within the last hour is exempt, so that another client behind it cannot lock it
    out, unless `RAGQ_API_KEY` is short enough to guess. Keys that come at once are all looked up, LOOK_UPS at a time, so that the
    right ones among them are let in, and of the wrong ones no more than GUESSES count. A key that is remembered waits for none.
    Each API process counts for itself.

    Args:
        key: `RAGQ_API_KEY`; None if none is needed, which opens everything to those who send no key that was made.

    Attributes:
        tally: Counts keys that open nothing for the audit log.
    """

    def __init__(self, key: str | None, callers: Callers, clock: Callable[[], float] = time.monotonic) -> None:
        self.tally = Tally()
        self._key = key
        self._callers = callers
        self._clock = clock
        self._addresses: OrderedDict[str, _Address] = OrderedDict()  # in the order of their last key

    @property
    def is_required(self) -> bool:
        """Whether requests need a key."""
        return self._key is not None

    async def check(self, given: str, host: str) -> Caller:
        """Find who sends a key.

        Args:
            given: Empty if none was sent.
            host: The client's address.

        Raises:
            AuthenticationError: The key, or the access token, is missing or wrong.
            ForbiddenError: Its tenant is suspended, or the token's groups have no role.
            OverloadedError: Too many wrong keys came from this address.
            UnavailableError: It may be one that was made, and PostgreSQL does not answer; or the provider does not.
        """
        given = given.strip()
        if self._key is None and not given.startswith(KEY_PREFIX):
            return ROOT
        if not given:
            raise _wrong_key()
        try:
            return await self._check(given, host)
        except (AuthenticationError, ForbiddenError, OverloadedError) as error:
            self.tally.count_wrong_key(host, error.code)
            raise

    async def _check(self, given: str, host: str) -> Caller:
        address, now = self._find(host), self._clock()
        address.guesses = max(0.0, address.guesses - (now - address.changed_at) / GUESS_SECONDS)
        address.changed_at = now
        is_long = self._key is None or len(self._key) >= LEAST_KEY_CHARACTERS
        if address.is_over and not (now < address.known_until and is_long):
            raise _too_many(address)
        try:
            caller = await self._recognize(given, address)
        except AuthenticationError as refusal:
            if address.is_over:  # maybe by keys that were looked up at the same time
                raise _too_many(address) from refusal
            address.guesses += 1
            raise
        address.known_until = now + KNOWN_SECONDS
        return caller

    async def _recognize(self, given: str, address: _Address) -> Caller:
        if self._key is not None and secrets.compare_digest(given.encode(), self._key.encode()):
            return ROOT
        caller = None
        if given.startswith(KEY_PREFIX):
            caller = await self._callers.by_value(given, address.turn)
        elif is_token(given):
            caller = await self._callers.by_token(given, address.turn)
        if caller is None:
            raise _wrong_key()
        return caller

    async def confirm(self, caller: Caller) -> Caller:
        """Check that the key of a caller who was let in is still valid, as on a connection that lasts; returns what it opens now.

        Raises:
            AuthenticationError: It was revoked, or has expired; or the session or the access token has.
            ForbiddenError: Its tenant is suspended.
            UnavailableError: PostgreSQL does not answer.
        """
        if caller.session_id:
            if now := await self._callers.by_session(caller.session_id):
                return now
            raise AuthenticationError("The session has ended: sign in again.")
        if caller is ROOT:
            return caller
        if caller.token:
            now = await self._callers.by_token(caller.token)
        else:
            now = await self._callers.by_id(caller.key_id)
        if now is None:
            raise AuthenticationError("The API key was revoked, or has expired.")
        return now

    def open_session(self, caller: Caller) -> str:
        """Make the cookie of a session, which ends with the caller's key.

        Raises:
            AuthenticationError: The caller has no key, and so nothing would end the session.
        """
        if not caller.key_id and caller is not ROOT:  # a cookie without a key's id is that of `RAGQ_API_KEY`
            raise AuthenticationError("An access token opens no session: sign in, or send an API key.")
        return open_session(self._key or "", caller.key_id)

    def open_signed_in(self, session_id: str) -> str:
        """Make the cookie of the session of someone who signed in."""
        return open_session(self._key or "", session_id)

    async def end_session(self, cookie: str) -> bool:
        """End the session of someone who signed in, also for a copy of the cookie; others end with their cookie.

        Returns:
            Whether it was the session of someone who signed in.

        Raises:
            UnavailableError: PostgreSQL does not answer.
        """
        holder_id = read_session(cookie, self._key) if self._key else None
        if not holder_id or not holder_id.startswith(SESSION_PREFIX):
            return False
        await self._callers.end_session(holder_id)
        return True

    async def check_session(self, cookie: str) -> Caller:
        """Find whose session it is.

        Raises:
            AuthenticationError: It has ended.
            ForbiddenError: The tenant is suspended.
            UnavailableError: PostgreSQL does not answer.
        """
        if self._key is None:
            return ROOT
        caller = await self._find_holder(read_session(cookie, self._key))
        if caller is None:
            raise AuthenticationError("The session has ended: send the API key to POST /session again, or sign in.")
        return caller

    async def _find_holder(self, holder_id: str | None) -> Caller | None:
        if not holder_id:
            return None if holder_id is None else ROOT
        find = self._callers.by_session if holder_id.startswith(SESSION_PREFIX) else self._callers.by_id
        return await find(holder_id)

    def _find(self, host: str) -> _Address:
        name = _group(host)
        address = self._addresses.get(name)
        if address is None:
            address = self._addresses[name] = _Address()
        self._addresses.move_to_end(name)
        if len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)
        return address


@lru_cache(MAX_ADDRESSES)
def _group(host: str) -> str:
    """The network of one client: for IPv6 its /64."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # no address: the request came over a Unix socket
        return ""
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped:  # an IPv4 client on a dual-stack socket
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _wrong_key() -> AuthenticationError:
    return AuthenticationError(
        "The API key is missing or wrong. Send it as 'Authorization: Bearer KEY'; it is RAGQ_API_KEY, or one that "
        "`ragq keys create` made."
    )


def _too_many(address: _Address) -> OverloadedError:
    wait = max(1.0, (address.guesses - (GUESSES - 1)) * GUESS_SECONDS)
    return OverloadedError(
        f"Too many wrong keys came from this address. Try again in {math.ceil(wait)} s.",
        code="too_many_wrong_keys",
        retry_after_seconds=wait,
    )
