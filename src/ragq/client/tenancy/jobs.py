"""All jobs and keys of one tenant in Valkey: to be found and deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from ragq.client.valkey_client import Command, ValkeyClient, translate_errors
from ragq.tasks import run_all

SCAN_KEYS = 1000  # looked at by one command
DELETES_AT_ONCE = 100  # they share Valkey's writes to disk
OF_JOBS = ("job", "results", "events")  # kinds of keys that are named by a job's id


class TenantJobs:
    """Deletes what a tenant has in the queue."""

    def __init__(self, valkey: ValkeyClient, prefix: str, run: Callable[..., Awaitable[Any]]) -> None:
        self._valkey = valkey
        self._prefix = prefix
        self._run = run

    async def close(self, tenant_id: str, *, seconds: float) -> None:
        """Refuse the tenant's new jobs for so long."""
        await self._run("close_tenant", tenant_id, int(seconds * 1000))

    async def open(self, tenant_id: str) -> None:
        """Take the jobs of a new tenant, also if one of this name was deleted lately."""
        async with translate_errors():
            await self._valkey.call("ZREM", f"{self._prefix}:closed", tenant_id)

    async def set_shares(self, shares: Mapping[str, tuple[float, int | None]]) -> None:
        """Write the (weight, most running jobs of a queue) of every tenant that has other ones than (1, None)."""
        entries = {tenant: f"{weight:g}:{most_running or 0}" for tenant, (weight, most_running) in shares.items()}
        await self._run("set_shares", *(part for entry in entries.items() for part in entry))

    async def find(self, tenant_id: str) -> AsyncIterator[list[str]]:
        """Yield the ids of the tenant's jobs in any state, in batches."""
        start = f"{self._prefix}:job:"
        async for keys in self._scan(f"{start}*"):
            tenants = await self._call_all([["HGET", key, "tenant"] for key in keys])
            ids = [key.removeprefix(start) for key, found in zip(keys, tenants, strict=True) if _is(found, tenant_id)]
            if ids:
                yield ids

    async def delete(self, job_ids: list[str]) -> None:
        """End and delete jobs; the worker of a running one is told, and cannot commit."""
        await run_all((self._run("delete", job_id) for job_id in job_ids), at_once=DELETES_AT_ONCE)

    async def clear(self, tenant_id: str) -> None:
        """Delete the tenant's lists and sets, and what recognizes its repeats; its jobs keep their hashes."""
        prefix = self._prefix
        async for keys in self._scan(f"{prefix}:*"):
            own = [key for key in keys if self._is_own(key, tenant_id)]
            await self._call_all([["UNLINK", key] for key in own])
        listed = await self._members("SMEMBERS", f"{prefix}:queues", tenant_id)
        await self._call_all([["SREM", f"{prefix}:queues", key] for key in listed])
        for counts in (f"{prefix}:tickets", f"{prefix}:served"):
            names = await self._members("HKEYS", counts, tenant_id)
            await self._call_all([["HDEL", counts, name] for name in names])
        await self._call_all([["HDEL", f"{prefix}:shares", tenant_id]])
        async for pools in self._scan(f"{prefix}:turns:*"):
            await self._call_all([["ZREM", pool, tenant_id] for pool in pools])
        async with translate_errors():
            await self._valkey.call("ZREM", f"{prefix}:over_budget", tenant_id)
        async for rings in self._scan(f"{prefix}:ring:*"):
            for ring in rings:
                names = await self._members("ZRANGE", ring, tenant_id, 0, -1)
                await self._call_all([["ZREM", ring, name] for name in names])

    def _is_own(self, key: str, tenant_id: str) -> bool:
        kind, _, rest = key.removeprefix(f"{self._prefix}:").partition(":")
        if kind == "recent":
            return rest.rpartition(":")[0] == tenant_id
        if kind == "limit":
            return rest.endswith(f":t:{tenant_id}")
        return kind not in OF_JOBS and rest.partition("@")[2] == tenant_id

    async def _members(self, command: str, key: str, tenant_id: str, *arguments: int) -> list[str]:
        """The names `queue[.lane]@tenant` of this tenant in a collection."""
        async with translate_errors():
            found = await self._valkey.call(command, key, *arguments)
        return [name for member in found if (name := _text(member)).partition("@")[2] == tenant_id]

    async def _scan(self, pattern: str) -> AsyncIterator[list[str]]:
        cursor = b"0"
        while True:
            async with translate_errors():
                cursor, keys = await self._valkey.call("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_KEYS)
            if keys:
                yield [_text(key) for key in keys]
            if cursor == b"0":
                return

    async def _call_all(self, commands: list[Command]) -> list[Any]:
        async with translate_errors():
            return await self._valkey.call_all(commands) if commands else []


def _is(found: Any, tenant_id: str) -> bool:
    return isinstance(found, bytes) and _text(found) == tenant_id


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")
