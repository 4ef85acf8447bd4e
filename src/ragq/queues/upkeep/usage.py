"""Add up what jobs cost, and watch the budgets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from ragq.accounts.usage import read_prices
from ragq.context import Context

log = structlog.get_logger(__name__)

USAGE_SECONDS = 1.0
ENTRIES = 1000  # added by one transaction
WARNING_PERCENT, ALL_PERCENT = 80, 100


async def add_usage_forever(context: Context) -> None:
    """Add up, as jobs end, what they cost."""
    while True:
        if await context.queue.claim_period("usage", every_seconds=USAGE_SECONDS):
            await add_usage(context)
        await asyncio.sleep(USAGE_SECONDS)


async def add_usage(context: Context) -> None:
    """Move what jobs cost from Valkey to PostgreSQL; after a kill the next process goes on, and adds nothing twice."""
    queue, prices = context.queue, read_prices(context.settings.prices)
    while entries := await queue.usage.read(ENTRIES):
        await context.usage.add(queue.prefix, entries, prices)
        await check_budgets(context, {entry.tenant_id for entry in entries})
        await queue.usage.trim(entries[-1].id)


async def check_budgets(context: Context, tenant_ids: Iterable[str]) -> None:
    """Warn of budgets that are nearly used up, and refuse the questions of tenants whose budget is. Idempotent."""
    for budget in await context.usage.budgets(tenant_ids):
        is_used_up = budget.share >= 1
        await context.queue.usage.set_over_budget(budget.tenant_id, budget.ends_at if is_used_up else None)
        percent = ALL_PERCENT if is_used_up else WARNING_PERCENT if budget.share * 100 >= WARNING_PERCENT else 0
        if percent and await context.usage.warn(budget, percent):
            log.warning("budget_used", tenant=budget.tenant_id, percent=percent)
