"""Who sends a request, and what that allows."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from starlette.requests import HTTPConnection

from ragq.errors import ForbiddenError, UnavailableError
from ragq.models import DEFAULT_TENANT
from ragq.storage.api_keys import OpenedKey

FRESH_SECONDS = 5.0  # how long a key that was found is used without asking again: a revoked one works no longer
STALE_SECONDS = 300.0  # the same, while PostgreSQL does not answer
MAX_REMEMBERED = 10_000


class Role(StrEnum):
    """What a key allows. Each role includes those before it."""

    READER = "reader"  # ask, search, and read
    USER = "user"  # put in documents, change and delete them
    ADMIN = "admin"  # keys and webhooks of the tenant
    OPERATOR = "operator"  # tenants, metrics and workers: no role of a key, but an admin's of the tenant `default`

    @property
    def rank(self) -> int:
        return list(Role).index(self)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request.

    Attributes:
        key_id: Of a key that was made; empty for `RAGQ_API_KEY`, and where none is needed.
    """

    tenant: str
    role: Role
    key_id: str = ""

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


ROOT = Caller(DEFAULT_TENANT, Role.OPERATOR)


class KeyStore(Protocol):
    """Where the keys are that were made."""

    async def open(self, value: str) -> OpenedKey | None:
        """Find a key by its value."""

    async def open_id(self, key_id: str) -> OpenedKey | None:
        """Find a key by its id."""


class Callers:
    """Finds the callers of keys that were made, and remembers each for a few seconds.

    While PostgreSQL does not answer, those that were found lately go on.

    Attributes:
        store: Set when the process has started.
    """

    def __init__(self, store: KeyStore | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self._clock = clock
        self._remembered: OrderedDict[tuple[str, bytes], tuple[OpenedKey, float]] = OrderedDict()

    async def by_value(self, value: str) -> Caller | None:
        """The caller with a key; None if it is unknown, revoked or expired.

        Raises:
            ForbiddenError: The tenant is suspended.
            UnavailableError: PostgreSQL does not answer.
        """
        digest = hashlib.sha256(value.encode()).digest()
        return _caller(await self._open(("value", digest), lambda store: store.open(value)))

    async def by_id(self, key_id: str) -> Caller | None:
        """The caller of a session that was opened with a key, as `by_value`."""
        return _caller(await self._open(("id", key_id.encode()), lambda store: store.open_id(key_id)))

    async def _open(
        self, place: tuple[str, bytes], find: Callable[[KeyStore], Awaitable[OpenedKey | None]]
    ) -> OpenedKey | None:
        known, now = self._remembered.get(place), self._clock()
        if known and now - known[1] < FRESH_SECONDS:
            return known[0]
        try:
            if self.store is None:
                raise UnavailableError("The service is starting. Try again.", retry_after_seconds=1)
            key = await find(self.store)
        except UnavailableError:
            if known and now - known[1] < STALE_SECONDS:
                return known[0]
            raise
        if key is None:
            self._remembered.pop(place, None)
            return None
        self._remembered[place] = key, now
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return key


def _caller(key: OpenedKey | None) -> Caller | None:
    if key is None:
        return None
    if key.is_suspended:
        raise ForbiddenError("This tenant is suspended. Ask the operator of this service.", code="tenant_suspended")
    role = Role(key.role)
    if role is Role.ADMIN and key.tenant_id == DEFAULT_TENANT:
        role = Role.OPERATOR
    return Caller(key.tenant_id, role, key.id)


ROLE_CHECKS: dict[Callable[..., Any], Role] = {}  # the dependencies by which routes declare the least role for them


def caller_with(role: Role) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """Make a dependency that refuses callers with a lower role; `Access` has authenticated them."""

    async def find_caller(connection: HTTPConnection) -> Caller:
        caller: Caller = connection.state.caller
        caller.require(role)
        return caller

    ROLE_CHECKS[find_caller] = role
    return find_caller


def tenant_with(role: Role) -> Callable[..., Coroutine[Any, Any, str]]:
    """Make a dependency as `caller_with`, which gives the tenant whose data the request may access."""
    find_caller = caller_with(role)

    async def find_tenant(connection: HTTPConnection) -> str:
        return (await find_caller(connection)).tenant

    ROLE_CHECKS[find_tenant] = role
    return find_tenant
