"""Who sends a request, and what that allows."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from starlette.requests import HTTPConnection

from ragq.accounts.limits import NO_KEY_LIMITS, NO_LIMITS, KeyLimits, Limits
from ragq.accounts.payer import Payer
from ragq.accounts.roles import Role
from ragq.accounts.views import TenantView
from ragq.errors import ForbiddenError, UnavailableError
from ragq.models import DEFAULT_TENANT
from ragq.storage.tenancy.api_keys import OpenedKey
from ragq.storage.tenancy.sessions import OpenedSession, Person

Opened = OpenedKey | OpenedSession
Turn = Callable[[], AbstractAsyncContextManager[None]]  # is around a look-up of what is not remembered
_Place = tuple[str, bytes]  # how a caller was found, and by what
StoreT = TypeVar("StoreT")

FRESH_SECONDS = 5.0  # how long a key that was found is used without asking again: a revoked one works no longer
STALE_SECONDS = 300.0  # the same, while PostgreSQL does not answer
MAX_REMEMBERED = 10_000
PERSON_PREFIX = "person:"  # begins the name of a person, in the place of the id of the key that pays


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request.

    Attributes:
        key_id: Of a key that was made; empty for `RAGQ_API_KEY`, where none is needed, and for people who signed in.
        session_id: Of the session of someone who signed in.
        person: Who signed in, or has sent the access token.
        token: The access token.
        stores: The vector stores that the key is limited to; None for all.
        groups: By which it may read documents that have readers.
        own_only: It sees no answers of others.
        shares: Other tenants share stores with this one.
        view: What of the tenant's data it may see: all, if it is an admin.
    """

    tenant: str
    role: Role
    key_id: str = ""
    session_id: str = ""
    person: Person | None = None
    token: str = field(default="", repr=False)
    limits: Limits = NO_LIMITS
    key_limits: KeyLimits = NO_KEY_LIMITS
    stores: tuple[str, ...] | None = None
    groups: tuple[str, ...] = ()
    own_only: bool = True
    shares: bool = False
    view: TenantView = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "view", self._make_view())  # once for the requests of some seconds

    @property
    def owner_id(self) -> str:
        """Whose answers and uploads they are, and who pays: the key, or the person."""
        return _name_of(self.person.issuer, self.person.subject) if self.person else self.key_id

    def new_payer(self) -> Payer:
        """Who pays for one request of this caller."""
        return Payer(self.tenant, self.owner_id, self.limits, self.key_limits)

    def _make_view(self) -> TenantView:
        if self.role.rank >= Role.ADMIN.rank:
            return TenantView(self.tenant, self.owner_id, groups=None, shares=self.shares)
        return TenantView(self.tenant, self.owner_id, self.stores, self.groups, self.own_only, self.shares)

    def require(self, role: Role) -> None:
        """Refuse what needs a higher role.

        Raises:
            ForbiddenError: This caller's role is lower.
        """
        if self.role.rank < role.rank:
            whose = (
                "an admin's key of the tenant 'default'" if role is Role.OPERATOR else f"a key with the role '{role}'"
            )
            raise ForbiddenError(f"This needs {whose}; yours has the role '{self.role}'.", code="insufficient_role")


@lru_cache(MAX_REMEMBERED)
def _name_of(issuer: str, subject: str) -> str:
    """The name of a person, which is no other's, also where another provider has the same subject."""
    return f"{PERSON_PREFIX}{hashlib.sha256(issuer.encode()).hexdigest()[:12]}:{subject}"


ROOT = Caller(DEFAULT_TENANT, Role.OPERATOR)


class KeyStore(Protocol):
    """Where the keys are that were made."""

    async def open(self, value: str) -> OpenedKey | None:
        """Find a key by its value."""

    async def open_id(self, key_id: str) -> OpenedKey | None:
        """Find a key by its id."""


class SessionStore(Protocol):
    """Where the sessions are of people who signed in."""

    async def open(self, session_id: str) -> OpenedSession | None:
        """Find a session by its id."""

    async def end(self, session_id: str) -> None:
        """End a session."""


class TokenStore(Protocol):
    """Where access tokens are verified."""

    async def open(self, token: str) -> OpenedSession | None:
        """Find what an access token opens."""


class Callers:
    """Finds the callers of keys that were made, of sessions and of access tokens, and remembers each for a few seconds.

    Requests that need the same caller at once share one look at PostgreSQL. While it does not answer, those that were found lately go on.

    Attributes:
        store: Set when the process has started, as is `sessions`.
        tokens: Set then, too, if access tokens are taken.
    """

    def __init__(self, store: KeyStore | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self.sessions: SessionStore | None = None
        self.tokens: TokenStore | None = None
        self._clock = clock
        self._remembered: OrderedDict[_Place, tuple[Caller | None, float]] = OrderedDict()  # None: suspended
        self._looks: dict[_Place, asyncio.Task[tuple[Caller | None, float] | None]] = {}

    async def by_value(self, value: str, turn: Turn = nullcontext) -> Caller | None:
        """The caller with a key; None if it is unknown, revoked or expired.

        Raises:
            ForbiddenError: The tenant is suspended.
            UnavailableError: PostgreSQL does not answer.
        """
        digest = hashlib.sha256(value.encode()).digest()
        return await self._find(("value", digest), lambda: _started(self.store).open(value), turn)

    async def by_id(self, key_id: str) -> Caller | None:
        """The caller of a session that was opened with a key, as `by_value`."""
        return await self._find(("id", key_id.encode()), lambda: _started(self.store).open_id(key_id))

    async def by_session(self, session_id: str) -> Caller | None:
        """The caller of the session of someone who signed in, as `by_value`; None if it has ended."""
        place = ("session", session_id.encode())
        return await self._find(place, lambda: _started(self.sessions).open(session_id))

    async def by_token(self, token: str, turn: Turn = nullcontext) -> Caller | None:
        """The caller with an access token, as `by_value`; None if access tokens are not taken.

        Raises:
            AuthenticationError: It is not valid.
            ForbiddenError: The person has no role, or the tenant is suspended.
            UnavailableError: PostgreSQL or the provider does not answer.
        """
        tokens = self.tokens
        if tokens is None:
            return None
        place = ("token", hashlib.sha256(token.encode()).digest())
        caller = await self._find(place, lambda: tokens.open(token), turn)
        return caller and replace(caller, token=token)

    async def end_session(self, session_id: str) -> None:
        """End the session of someone who signed in; other processes see it within FRESH_SECONDS."""
        await _started(self.sessions).end(session_id)
        self._remembered.pop(("session", session_id.encode()), None)

    async def _find(
        self, place: _Place, open_: Callable[[], Awaitable[Opened | None]], turn: Turn = nullcontext
    ) -> Caller | None:
        known = self._remembered.get(place)
        if not known or self._clock() - known[1] >= FRESH_SECONDS:
            look = self._looks.get(place)
            if look is None:
                look = self._looks[place] = asyncio.create_task(
                    self._look(place, open_, nullcontext if known else turn)
                )
                look.add_done_callback(lambda done: self._forget_look(place, done))
            known = await asyncio.shield(look)  # a client that leaves takes it from no other
        if known is None:
            return None
        if not known[0]:
            raise ForbiddenError("This tenant is suspended. Ask the operator of this service.", code="tenant_suspended")
        return known[0]

    async def _look(
        self, place: _Place, open_: Callable[[], Awaitable[Opened | None]], turn: Turn
    ) -> tuple[Caller | None, float] | None:
        """Look in PostgreSQL, and remember what was found; None if there is nothing."""
        known = self._remembered.get(place)
        try:
            async with turn():
                now = self._clock()
                opened = await open_()
        except UnavailableError:
            if known and self._clock() - known[1] < STALE_SECONDS:
                return known
            raise
        if opened is None:
            self._remembered.pop(place, None)
            return None
        found = self._remembered[place] = (None if opened.is_suspended else _caller(opened)), now
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return found

    def _forget_look(self, place: _Place, done: asyncio.Task[Any]) -> None:
        del self._looks[place]
        if not done.cancelled():
            done.exception()  # marked as seen: all who waited may have left


def _started(store: StoreT | None) -> StoreT:
    if store is None:
        raise UnavailableError("The service is starting. Try again.", retry_after_seconds=1)
    return store


def _caller(key: Opened) -> Caller:
    role = Role(key.role)
    if role is Role.ADMIN and key.tenant_id == DEFAULT_TENANT:
        role = Role.OPERATOR
    caller = Caller(
        key.tenant_id,
        role,
        limits=key.limits,
        groups=tuple(key.groups),
        own_only=key.has_readers,
        shares=key.has_shares,
    )
    if isinstance(key, OpenedSession):
        return replace(caller, session_id=key.id, person=Person(key.issuer, key.subject, key.name, tuple(key.groups)))
    if key.vector_store_ids is not None:
        caller = replace(caller, stores=tuple(key.vector_store_ids), own_only=True)
    return replace(caller, key_id=key.id, key_limits=key.key_limits)


ROLE_CHECKS: dict[Callable[..., Any], Role] = {}  # the dependencies by which routes declare the least role for them


def caller_with(role: Role) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """Make a dependency that refuses callers with a lower role; `Access` has authenticated them."""

    async def find_caller(connection: HTTPConnection) -> Caller:
        caller: Caller = connection.state.caller
        caller.require(role)
        return caller

    ROLE_CHECKS[find_caller] = role
    return find_caller


def view_with(role: Role) -> Callable[..., Coroutine[Any, Any, TenantView]]:
    """Make a dependency as `caller_with`, which gives the tenant's data as far as the caller may see it."""
    find_caller = caller_with(role)

    async def find_view(connection: HTTPConnection) -> TenantView:
        return (await find_caller(connection)).view

    ROLE_CHECKS[find_view] = role
    return find_view


def tenant_with(role: Role) -> Callable[..., Coroutine[Any, Any, str]]:
    """Make a dependency as `caller_with`, which gives the tenant whose data the request may access."""
    find_caller = caller_with(role)

    async def find_tenant(connection: HTTPConnection) -> str:
        return (await find_caller(connection)).tenant

    ROLE_CHECKS[find_tenant] = role
    return find_tenant
