"""What routes note in the audit log: a change, with the caller and its address, and what was refused."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import structlog
from fastapi import Depends
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from ragq.accounts.views import Viewer, tenant_of
from ragq.errors import AuthenticationError, ForbiddenError, NotFoundError, PermanentError, RagqError, TransientError
from ragq.http.callers import Caller
from ragq.http.declared import find_declared
from ragq.models import DEFAULT_TENANT
from ragq.storage.tenancy.audit_log import UNCONFIRMED, Action, Actor, ActorType, AuditLog, Entry

logger = structlog.get_logger(__name__)

WRITE_SECONDS = 10.0  # after which what was counted is written, or lost if the process is killed before
MOST_COUNTED = 1000  # different refusals between two writes: those of further addresses are counted together
OTHERS = "others"  # stands for these addresses
SIGN_IN: Action = "session.created"
REFUSED: Action = "access.refused"  # what has no action of its own


def actor_of(caller: Caller, connection: HTTPConnection) -> Actor:
    """Who sends a request, as the audit log names it."""
    address = connection.client.host if connection.client else ""
    if caller.person:
        return Actor("person", caller.tenant, caller.person.subject, caller.role, address, caller.person.name)
    kind: ActorType = "api_key" if caller.key_id else "operator"
    return Actor(kind, caller.tenant, caller.key_id, caller.role, address)


@dataclass(frozen=True, slots=True)
class Change:
    """What a route changes. Call it around the statements that do so: `async with change(tenant, key_id): …`."""

    log: AuditLog
    actor: Actor
    action: Action

    @asynccontextmanager
    async def __call__(self, tenant: Viewer, object_id: str = "", **data: Any) -> AsyncIterator[Entry]:
        """Make the changes of the block and their entry one transaction.

        Args:
            tenant: Whose object it is.
            object_id: May be set on the entry as soon as it is known.
            data: Ids, numbers and names of keys; no text of documents or questions.
        """
        async with self.log.recorded(Entry(self.actor, self.action, tenant_of(tenant), object_id, data=data)) as entry:
            yield entry

    async def note(self, tenant: Viewer, object_id: str, **data: Any) -> None:
        """Write the entry of what begins now, and of which some is done however it ends."""
        await self.log.add(Entry(self.actor, self.action, tenant_of(tenant), object_id, data=data))

    @asynccontextmanager
    async def outside(self, tenant: Viewer, object_id: str, **data: Any) -> AsyncIterator[None]:
        """Write the entry before the block, whose changes are not in PostgreSQL alone, and how it ended after it.

        So no change is without its entry. One whose end is not known, such as after an outage or a kill, stays unconfirmed.
        """
        entry = Entry(self.actor, self.action, tenant_of(tenant), object_id, UNCONFIRMED, data=data)
        entry_id = await self.log.add(entry)
        try:
            yield
        except PermanentError as error:
            error.is_recorded = True
            await self._settle(entry_id, error.code)
            raise
        await self._settle(entry_id, None)

    async def _settle(self, entry_id: str | None, code: str | None) -> None:
        """Say how it ended; that cannot be undone, so an outage of PostgreSQL does not fail the request."""
        try:
            if entry_id:
                await self.log.settle(entry_id, code)
        except TransientError as error:
            logger.warning("audit_entry_unconfirmed", action=self.action, entry=entry_id, reason=str(error))


_ACTIONS: dict[Callable[..., Any], Action] = {}  # of the dependencies by which routes declare what they change


def audited(action: Action) -> Any:
    """Make the dependency by which a route declares what it changes, and gets its `Change`.

    So: `change: Annotated[Change, audited("key.created")]`.
    """

    async def find_change(connection: HTTPConnection) -> Change:
        log: AuditLog = connection.app.state.context.audit_log
        return Change(log, actor_of(connection.state.caller, connection), action)

    _ACTIONS[find_change] = action
    return Depends(find_change)


def find_action(route: BaseRoute | None) -> Action | None:
    """What a route notes in the audit log, as it declares."""
    return next(iter(find_declared(route, _ACTIONS)), None)


@dataclass(frozen=True, slots=True)
class _Event:
    actor: Actor
    action: Action
    code: str | None


class Tally:
    """Counts what changes no row, such as refusals, so that a flood of them is a few entries."""

    def __init__(self) -> None:
        self._counts: Counter[_Event] = Counter()

    def count(self, actor: Actor, action: Action, code: str | None = None) -> None:
        """Count an event; `code` says why something was refused."""
        self._add(_Event(actor, action, code), 1)

    def count_wrong_key(self, address: str, code: str) -> None:
        """Count a key that opens nothing."""
        self.count(Actor("unknown", DEFAULT_TENANT, address=address), REFUSED, code)

    def count_refusal(self, connection: HTTPConnection, error: RagqError) -> None:
        """Count what a caller may not do, or tried on an object that it does not have."""
        if caller := getattr(connection.state, "caller", None):
            self.count_error(actor_of(caller, connection), find_action(connection.scope.get("route")), error)

    def count_error(self, actor: Actor, action: Action | None, error: RagqError) -> None:
        """Count an error as `count_refusal`; `action` is what would have changed something."""
        if error.is_recorded:
            return
        if isinstance(error, ForbiddenError) or (action and isinstance(error, NotFoundError)):
            self.count(actor, action or REFUSED, error.code)

    def count_sign_in(self, caller: Caller, connection: HTTPConnection) -> None:
        """Count a session that was opened."""
        self.count(actor_of(caller, connection), SIGN_IN)

    def count_failed_sign_in(self, connection: HTTPConnection, error: RagqError) -> None:
        """Count a session that was refused to someone who came back from the provider."""
        if isinstance(error, AuthenticationError | ForbiddenError):
            address = connection.client.host if connection.client else ""
            self.count(Actor("unknown", DEFAULT_TENANT, address=address), SIGN_IN, error.code)

    def _add(self, event: _Event, times: int) -> None:
        if event not in self._counts and len(self._counts) >= MOST_COUNTED:
            event = replace(event, actor=replace(event.actor, address=OTHERS))
        self._counts[event] += times

    async def write_forever(self, log: AuditLog) -> None:
        """Write from time to time what was counted."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self.write(log)

    async def write_rest(self, log: AuditLog) -> None:
        """Write what is left, at the end of the process, if PostgreSQL answers."""
        with suppress(TransientError):
            await self.write(log)

    async def write(self, log: AuditLog) -> None:
        """Write what was counted since the last time; what cannot be written now is kept, and what never can is dropped.

        Raises:
            UnavailableError: PostgreSQL does not answer.
        """
        while self._counts:
            event, times = self._counts.popitem()
            try:
                await log.add(Entry(event.actor, event.action, event.actor.tenant, code=event.code, count=times))
            except (TransientError, asyncio.CancelledError):
                self._add(event, times)
                raise
            except Exception:  # kept, it would come first again, and nothing be written any more
                logger.exception("audit_entry_lost", action=event.action, code=event.code, count=times)
