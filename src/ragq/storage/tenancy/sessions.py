"""Sessions of people who signed in at an OpenID provider."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ragq.accounts.limits import Limits
from ragq.errors import ForbiddenError
from ragq.models import new_id
from ragq.storage.database import Database
from ragq.storage.paging import Listed, Page, read_page
from ragq.storage.tenancy.limits import read_limits
from ragq.storage.tenancy.tenants import OPENED

SESSION_PREFIX = "sess_"
LONGEST_NAME = 200  # characters

_SESSIONS = Listed(
    "sessions",
    """SELECT id, tenant_id, role, subject, name, created_at, expires_at FROM sessions
       WHERE tenant_id = %(tenant)s AND issuer = %(issuer)s AND expires_at > now()""",
    "tenant_id = %(tenant)s",
)
_CREATE = """
    INSERT INTO sessions (id, tenant_id, role, issuer, subject, name, groups, expires_at)
    SELECT %(id)s, id, %(role)s, %(issuer)s, %(subject)s, %(name)s, %(groups)s, %(expires_at)s FROM tenants
    WHERE id = %(tenant)s AND coalesce(suspended_at, deleted_at) IS NULL
    RETURNING id"""
_OPEN = f"""
    SELECT s.id, s.tenant_id, s.role, s.issuer, s.subject, s.name, s.groups, {OPENED}
    FROM sessions s JOIN tenants t ON t.id = s.tenant_id
    WHERE s.id = %(id)s AND s.issuer = %(issuer)s AND s.expires_at > now()"""  # noqa: S608  (constants)


@dataclass(frozen=True, slots=True)
class Person:
    """Someone who has signed in.

    Attributes:
        issuer: The provider.
        subject: The provider's id of them, which never changes.
        name: For people to read, of at most LONGEST_NAME characters.
        groups: At the provider, by which they have a role, and may read documents that have readers.
    """

    issuer: str
    subject: str
    name: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as it is listed."""

    id: str
    tenant_id: str
    role: str
    subject: str
    name: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """A session that has not ended."""

    id: str
    tenant_id: str
    role: str
    issuer: str
    subject: str
    name: str
    is_suspended: bool
    groups: Sequence[str]
    limits: Limits
    has_readers: bool
    has_shares: bool


class Sessions:
    """The sessions of people who signed in at one provider; those of another open nothing.

    Args:
        issuer: The provider.
    """

    def __init__(self, database: Database, issuer: str) -> None:
        self._database = database
        self._issuer = issuer

    async def create(self, person: Person, *, tenant_id: str, role: str, expires_at: datetime) -> str:
        """Open a session; returns its id.

        Raises:
            ForbiddenError: The tenant is not there, or is suspended.
        """
        created = await self._database.for_tenant(tenant_id).row(
            _CREATE,
            id=new_id(SESSION_PREFIX),
            role=role,
            issuer=self._issuer,
            subject=person.subject,
            name=person.name,
            groups=list(person.groups),
            expires_at=expires_at,
        )
        if not created:
            raise ForbiddenError(f"The tenant '{tenant_id}' is not there, or is suspended.", code="no_tenant")
        return str(created["id"])

    async def open(self, session_id: str) -> OpenedSession | None:
        """Find what a session opens; None if it has ended."""
        row = await self._database.for_all().row(_OPEN, id=session_id, issuer=self._issuer)
        return OpenedSession(**row | {"limits": read_limits(row["limits"])}) if row else None

    async def end(self, session_id: str) -> None:
        """End a session. Idempotent."""
        await self._database.for_all().row("DELETE FROM sessions WHERE id = %(id)s RETURNING id", id=session_id)

    async def list_sessions(self, tenant_id: str, page: Page) -> list[SessionRecord]:
        """List a tenant's sessions by age; one more than `page.limit` if there are more."""
        return await read_page(
            self._database.for_tenant(tenant_id), SessionRecord, _SESSIONS, page, issuer=self._issuer
        )

    async def end_all(self, tenant_id: str, subject: str) -> int:
        """End the sessions of one person in a tenant; returns how many there were."""
        query = """
            WITH ended AS (DELETE FROM sessions WHERE tenant_id = %(tenant)s AND subject = %(subject)s RETURNING id)
            SELECT count(*) AS count FROM ended"""
        row = await self._database.for_tenant(tenant_id).row(query, subject=subject.replace("\0", ""))
        return int(row["count"]) if row else 0

    async def expire(self) -> None:
        """Delete the sessions that have ended by themselves."""
        await self._database.for_all().row(
            "WITH ended AS (DELETE FROM sessions WHERE expires_at <= now()) SELECT 1 AS done"
        )
