"""What jobs cost, in Valkey: a stream from which PostgreSQL adds it up, and the tenants whose budget is used up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any

import msgspec
import structlog

from ragq.accounts.usage import JobUsage, UsageEntry, read_usage, write_usage
from ragq.client.valkey_client import ValkeyClient, pairs, translate_errors

FIRST_DAY = date(1970, 1, 1)

log = structlog.get_logger(__name__)


class UsageStream:
    """Reads what the commits of jobs have noted."""

    def __init__(self, valkey: ValkeyClient, prefix: str, run: Callable[..., Awaitable[Any]]) -> None:
        self._valkey = valkey
        self._prefix = prefix
        self._run = run

    async def read(self, limit: int) -> list[UsageEntry]:
        """Read the oldest entries; those that nobody can read are deleted."""
        async with translate_errors():
            found = await self._valkey.call("XRANGE", f"{self._prefix}:usage", "-", "+", "COUNT", limit)
        entries = []
        for raw_id, flat in found:
            fields = pairs(flat)
            try:
                entries.append(
                    UsageEntry(
                        _parse_id(raw_id),
                        fields[b"tenant"].decode(),
                        fields[b"key"].decode(),
                        read_usage(fields[b"usage"]),
                    )
                )
            except (ValueError, LookupError, msgspec.MsgspecError) as error:
                log.error("usage_unreadable", entry=raw_id.decode(), error=str(error))
                async with translate_errors():
                    await self._valkey.call("XDEL", f"{self._prefix}:usage", raw_id)
        return entries

    async def trim(self, position: tuple[int, int]) -> None:
        """Delete the entries up to this one."""
        async with translate_errors():
            await self._valkey.call("XTRIM", f"{self._prefix}:usage", "MINID", f"{position[0]}-{position[1] + 1}")

    async def add(self, job_id: str, tenant_id: str, usage: JobUsage) -> None:
        """Note what a job cost that is not committed: what an attempt spent before it was cancelled or is tried again."""
        await self._run("add_usage", job_id, tenant_id, write_usage(usage), usage.tokens)

    async def set_tokens(self, scope: str, tokens: int, day: date) -> None:
        """Count what a scope of the limits (`t:` and the tenant, `k:` and the key) used on a day, unless more is counted or it is over."""
        await self._run("set_tokens", scope, tokens, (day - FIRST_DAY).days)

    async def set_over_budget(self, tenant_id: str, until: float | None) -> None:
        """Refuse a tenant's questions until this time, in seconds since 1970; None: refuse none."""
        key = f"{self._prefix}:over_budget"
        async with translate_errors():
            if until is None:
                await self._valkey.call("ZREM", key, tenant_id)
            else:
                await self._valkey.call("ZADD", key, round(until * 1000), tenant_id)


def _parse_id(raw: bytes) -> tuple[int, int]:
    milliseconds, _, number = raw.decode().partition("-")
    return int(milliseconds), int(number)
