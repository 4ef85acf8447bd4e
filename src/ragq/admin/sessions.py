"""The sessions of people who signed in to a tenant."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field
from typing_extensions import TypedDict

from ragq.admin.keys import KeysTenant
from ragq.http.audit import Change, audited
from ragq.http.input import CheckedRoute
from ragq.routes.context import ContextDependency, PageDependency, listing
from ragq.schemas.objects import Body, Listing
from ragq.storage.tenancy.sessions import SessionRecord

router = APIRouter(prefix="/v1/admin/sessions", route_class=CheckedRoute)


class PersonSession(TypedDict):
    """A session of someone who signed in."""

    id: str
    object: Literal["person_session"]
    tenant: str
    role: str
    subject: str
    name: str
    created_at: int
    expires_at: int


class SessionsEnd(Body):
    """Whose sessions end."""

    subject: str = Field(min_length=1, max_length=1000)


class SessionsEnded(TypedDict):
    """How many sessions have ended."""

    object: Literal["person_sessions.ended"]
    count: int


@router.get("")
async def list_sessions(page: PageDependency, context: ContextDependency, tenant: KeysTenant) -> Listing[PersonSession]:
    """List the sessions that have not ended, by age."""
    return listing([_render(record) for record in await context.sessions.list_sessions(tenant, page)], page)


@router.post("/end")
async def end_sessions(
    body: SessionsEnd,
    context: ContextDependency,
    tenant: KeysTenant,
    change: Annotated[Change, audited("person.sessions_ended")],
) -> SessionsEnded:
    """End all sessions of a person. They open nothing after five seconds."""
    async with change(tenant, body.subject) as entry:
        count = await context.sessions.end_all(tenant, body.subject)
        entry.data = {"sessions": count}
    return {"object": "person_sessions.ended", "count": count}


def _render(record: SessionRecord) -> PersonSession:
    return {
        "id": record.id,
        "object": "person_session",
        "tenant": record.tenant_id,
        "role": record.role,
        "subject": record.subject,
        "name": record.name,
        "created_at": int(record.created_at.timestamp()),
        "expires_at": int(record.expires_at.timestamp()),
    }
