"""Poison: files whose reading has crashed or exceeded a limit, and nothing reads them again until they are forgiven."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from typing_extensions import TypedDict

from ragq.accounts.roles import Role
from ragq.http.audit import Change, audited
from ragq.http.input import CheckedRoute
from ragq.models import DEFAULT_TENANT
from ragq.routes.context import Admin, ContextDependency, Operator
from ragq.storage.console.poison import PoisonRecord

router = APIRouter(prefix="/v1/admin/poison", route_class=CheckedRoute)


class PoisonObject(TypedDict):
    """Poison; its id is the SHA-256 of its bytes. `filenames` are those of the files that the caller sees."""

    id: str
    object: Literal["poison"]
    code: str
    reason: str
    created_at: int
    filenames: list[str]


class PoisonList(TypedDict):
    """The poison, the latest first, up to 1,000."""

    object: Literal["list"]
    data: list[PoisonObject]


class Forgiven(TypedDict):
    """A file that may be read again."""

    id: str
    object: Literal["poison"]
    forgiven: Literal[True]


@router.get("")
async def list_poison(context: ContextDependency, caller: Admin) -> PoisonList:
    """List the poison among the files of the caller's tenant; to the operator, that of all tenants."""
    whose = None if caller.role is Role.OPERATOR else caller.tenant
    return {"object": "list", "data": [_render(record) for record in await context.poison.list_files(whose)]}


@router.post("/{sha256}/forgive")
async def forgive_file(
    sha256: str,
    context: ContextDependency,
    _caller: Operator,
    change: Annotated[Change, audited("poison.forgiven")],
) -> Forgiven:
    """Allow a file to be read again. Then put it into its store again, or run its job again."""
    async with change(DEFAULT_TENANT, sha256):
        await context.files.forgive_poison(sha256)
    return {"id": sha256, "object": "poison", "forgiven": True}


def _render(record: PoisonRecord) -> PoisonObject:
    return {
        "id": record.sha256,
        "object": "poison",
        "code": record.code,
        "reason": record.reason,
        "created_at": int(record.created_at.timestamp()),
        "filenames": record.filenames,
    }
