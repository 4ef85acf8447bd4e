"""What jobs cost, added up by tenant, day, key and model, and the budgets of tenants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Literal

from ragq.accounts.usage import JobUsage, Price, UsageEntry
from ragq.storage.database import Database
from ragq.storage.tenancy.limits import read_limits
from ragq.storage.webhooks import Event, add_deliveries

Group = Literal["tenant", "day", "key", "model"]
COLUMNS: dict[Group, str] = {"tenant": "tenant_id", "day": "day", "key": "key_id", "model": "model"}
SUMS = tuple(name for name in JobUsage.__struct_fields__ if name != "model")
NO_PRICE = Price()
MILLION = 1_000_000
WARNING, EXCEEDED = "budget.warning", "budget.exceeded"

_ADD = f"""
    INSERT INTO usage AS u (tenant_id, day, key_id, model, {", ".join(SUMS)}, cost)
    SELECT t.id, n.day, n.key_id, n.model, {", ".join(f"n.{name}" for name in SUMS)}, n.cost
    FROM unnest(%s::text[], %s::date[], %s::text[], %s::text[], {", ".join("%s::bigint[]" for _ in SUMS)}, %s::numeric[])
         AS n (tenant_id, day, key_id, model, {", ".join(SUMS)}, cost)
    JOIN tenants t ON t.id = n.tenant_id
    ORDER BY n.tenant_id, n.day, n.key_id, n.model FOR KEY SHARE OF t
    ON CONFLICT (tenant_id, day, key_id, model) DO UPDATE
    SET {", ".join(f"{name} = u.{name} + excluded.{name}" for name in (*SUMS, "cost"))}"""  # noqa: S608  (constants)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSum:
    """What jobs cost together; of what they are not grouped by, there is None."""

    tenant: str | None = None
    day: date | None = None
    key: str | None = None
    model: str | None = None
    requests: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    estimated_tokens: int
    waited_ms: int
    retrieve_ms: int
    answer_ms: int
    documents: int
    pages: int
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Budget:
    """A tenant's budget, and what of it is used in this month of UTC.

    Attributes:
        share: Of the budget that is used first, 1 is all.
    """

    tenant_id: str
    cost: Decimal
    tokens: int
    share: float
    month: date

    @property
    def ends_at(self) -> float:
        """When the next month begins, in seconds since 1970."""
        year, month = divmod(self.month.year * 12 + self.month.month, 12)
        return datetime(year, month + 1, 1, tzinfo=UTC).timestamp()


class UsageStore:
    """The usage of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, prefix: str, entries: Sequence[UsageEntry], prices: Mapping[str, Price]) -> None:
        """Add entries of a stream, each once: those up to the last one that was added are left out.

        Args:
            prefix: Of the stream's keys.
            entries: Ascending.
        """
        async with self._database.for_all().connection() as connection, connection.transaction():
            await connection.execute("INSERT INTO usage_positions VALUES (%s, 0, 0) ON CONFLICT DO NOTHING", [prefix])
            position = "SELECT milliseconds, number FROM usage_positions WHERE prefix = %s FOR UPDATE"
            added = await (await connection.execute(position, [prefix])).fetchone() or (0, 0)
            new = [entry for entry in entries if entry.id > added]
            if not new:
                return
            rows = _sum(new, prices)
            await connection.execute(_ADD, [list(column) for column in zip(*rows, strict=True)])
            await connection.execute(
                "UPDATE usage_positions SET milliseconds = %s, number = %s WHERE prefix = %s", [*new[-1].id, prefix]
            )

    async def report(self, tenant_id: str | None, *, first: date, last: date, by: Iterable[Group]) -> list[UsageSum]:
        """Sum up days of UTC, from the first to the last.

        Args:
            tenant_id: None for all tenants.
        """
        groups = [group for group in COLUMNS if group in set(by)]
        columns = [f"{COLUMNS[group]} AS {group}" for group in groups]
        sums = [f"sum({name})::{'numeric' if name == 'cost' else 'bigint'} AS {name}" for name in (*SUMS, "cost")]
        grouping = f"GROUP BY {', '.join(COLUMNS[group] for group in groups)}" if groups else "HAVING count(*) > 0"
        order = f"ORDER BY {', '.join(COLUMNS[group] for group in sorted(groups, key='day tenant key model'.split().index))}"
        return await self._database.for_one_or_all(tenant_id).records(
            UsageSum,
            f"""SELECT {", ".join([*columns, *sums])} FROM usage
                WHERE day BETWEEN %(first)s AND %(last)s AND (tenant_id = %(tenant)s OR %(tenant)s::text IS NULL)
                {grouping} {order if groups else ""}""",  # noqa: S608  (constants)
            first=first,
            last=last,
            tenant=tenant_id,
        )

    async def tokens_of_day(self, tenant_id: str, day: date) -> dict[str, int]:
        """The tokens of a day of UTC, by key."""
        sums = await self.report(tenant_id, first=day, last=day, by=["key"])
        return {str(one.key): one.input_tokens + one.output_tokens for one in sums}

    async def budgets(self, tenant_ids: Iterable[str]) -> list[Budget]:
        """The budgets of those tenants that have one."""
        month = datetime.now(UTC).date().replace(day=1)
        async with self._database.for_all().connection() as connection:
            found = await connection.execute(
                """SELECT t.id, t.limits, coalesce(sum(u.cost), 0),
                          coalesce(sum(u.input_tokens + u.output_tokens), 0)::bigint
                   FROM tenants t LEFT JOIN usage u ON u.tenant_id = t.id AND u.day >= %s
                   WHERE t.id = ANY (%s) AND t.limits ?| ARRAY['cost_per_month', 'tokens_per_month']
                   GROUP BY t.id""",
                [month, list(tenant_ids)],
            )
            rows = await found.fetchall()
        budgets = []
        for tenant_id, raw, cost, tokens in rows:
            limits = read_limits(raw)
            used = [(cost, limits.cost_per_month), (tokens, limits.tokens_per_month)]
            shares = [float(spent) / most if most else 1.0 for spent, most in used if most is not None]
            budgets.append(Budget(tenant_id, cost, tokens, max(shares), month))
        return budgets

    async def warn(self, budget: Budget, percent: int) -> bool:
        """Put the event that this share of a budget is used into the outbox, once a month; returns whether it was the first time."""
        async with self._database.for_tenant(budget.tenant_id).transaction() as connection:
            changed = await connection.execute(
                """UPDATE tenants SET warned_month = %(month)s, warned_percent = %(percent)s
                   WHERE id = %(tenant)s AND (warned_month IS DISTINCT FROM %(month)s OR warned_percent < %(percent)s)""",
                {"tenant": budget.tenant_id, "month": budget.month, "percent": percent},
            )
            if changed.rowcount:
                kind = EXCEEDED if percent >= 100 else WARNING
                event = Event(budget.tenant_id, kind, budget.tenant_id, datetime.now(UTC).timestamp())
                await add_deliveries(connection, [event])
            return bool(changed.rowcount)


def _sum(entries: Iterable[UsageEntry], prices: Mapping[str, Price]) -> list[tuple[object, ...]]:
    """Add up entries to rows of `usage`."""
    sums: dict[tuple[str, date, str, str], list[int]] = defaultdict(lambda: [0] * len(SUMS))
    for entry in entries:
        day = datetime.fromtimestamp(entry.id[0] / 1000, UTC).date()
        row = sums[entry.tenant_id, day, entry.key_id, entry.usage.model]
        for place, name in enumerate(SUMS):
            row[place] += getattr(entry.usage, name)
    return [
        (*key, *row, _cost(dict(zip(SUMS, row, strict=True)), prices.get(key[3], NO_PRICE)))
        for key, row in sums.items()
    ]


def _cost(tokens: Mapping[str, int], price: Price) -> Decimal:
    """The cost at a price of a million tokens each."""
    spent = tokens["input_tokens"] * Decimal(str(price.input)) + tokens["output_tokens"] * Decimal(str(price.output))
    return spent / MILLION
