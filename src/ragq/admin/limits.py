"""The limits of tenants, which the operator sets, and of keys, which their tenant's admin sets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from typing_extensions import TypedDict

from ragq.accounts.limits import KeyLimits
from ragq.admin.keys import KeysTenant
from ragq.http.audit import Change, audited
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.models import DEFAULT_TENANT
from ragq.queues.upkeep.usage import check_budgets
from ragq.routes.context import ApiContext, ContextDependency, Operator
from ragq.schemas.limits import KeyLimitsUpdate, TenantLimitsUpdate

router = APIRouter(prefix="/v1/admin", route_class=CheckedRoute)


class KeyLimitsObject(TypedDict):
    """The limits of a key; null is no limit but its tenant's."""

    requests_per_minute: int | None
    queued: int | None
    tokens_per_day: int | None


class TenantLimitsObject(KeyLimitsObject):
    """The limits and budgets of a tenant, and those of its keys, by their ids; null is no limit."""

    object: Literal["limits"]
    tenant: str
    documents: int | None
    bytes: int | None
    cost_per_month: float | None
    tokens_per_month: int | None
    keys: dict[str, KeyLimitsObject]


@router.get("/limits", responses=refusals(404))
async def get_limits(context: ContextDependency, tenant: KeysTenant) -> TenantLimitsObject:
    """Show the limits of a tenant and its keys."""
    return await _render(context, tenant)


@router.post("/tenants/{tenant_id}/limits")
async def set_tenant_limits(
    tenant_id: str,
    body: TenantLimitsUpdate,
    context: ContextDependency,
    _caller: Operator,
    change: Annotated[Change, audited("tenant.limits_updated")],
) -> TenantLimitsObject:
    """Change a tenant's limits. They hold for all of its keys together, after five seconds at the latest."""
    async with change(DEFAULT_TENANT, tenant_id, **body.model_dump(exclude_unset=True)):
        await context.limits.change_tenant(tenant_id, body.change)
    await _count_today(context, tenant_id)
    await check_budgets(context, [tenant_id])
    return await _render(context, tenant_id)


@router.post("/keys/{key_id}/limits")
async def set_key_limits(
    key_id: str,
    body: KeyLimitsUpdate,
    context: ContextDependency,
    tenant: KeysTenant,
    change: Annotated[Change, audited("key.limits_updated")],
) -> KeyLimitsObject:
    """Change a key's limits. Its tenant's hold beside them."""
    async with change(tenant, key_id, **body.model_dump(exclude_unset=True)):
        limits = await context.limits.change_key(tenant, key_id, body.change)
    await _count_today(context, tenant)
    return _render_key(limits)


async def _count_today(context: ApiContext, tenant_id: str) -> None:
    """Let new limits of tokens count what was used today before them."""
    today = datetime.now(UTC).date()
    by_key, found = await context.usage.tokens_of_day(tenant_id, today), await context.limits.get(tenant_id)
    if found.tenant.tokens_per_day is not None:
        await context.queue.usage.set_tokens(f"t:{tenant_id}", sum(by_key.values()), today)
    for key_id, limits in found.keys.items():
        if limits.tokens_per_day is not None:
            await context.queue.usage.set_tokens(f"k:{key_id}", by_key.get(key_id, 0), today)


async def _render(context: ApiContext, tenant_id: str) -> TenantLimitsObject:
    found = await context.limits.get(tenant_id)
    limits = found.tenant
    return {
        "object": "limits",
        "tenant": tenant_id,
        **_render_key(limits),
        "documents": limits.documents,
        "bytes": limits.bytes,
        "cost_per_month": limits.cost_per_month,
        "tokens_per_month": limits.tokens_per_month,
        "keys": {key_id: _render_key(one) for key_id, one in found.keys.items()},
    }


def _render_key(limits: KeyLimits) -> KeyLimitsObject:
    return {
        "requests_per_minute": limits.requests_per_minute,
        "queued": limits.queued,
        "tokens_per_day": limits.tokens_per_day,
    }
