"""What Valkey holds of a tenant."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from typing import Any

from ragq.client.valkey_client import Command, ValkeyClient, translate_errors
from ragq.models import Lane, QueueName

SCANNED = 1000  # keys that one command looks at
LANES = ("", ".solo", *(f".{lane}" for lane in Lane))
# Of these, a list's name is a field or a member.
_BY_NAME = ("tickets", "served")
_OF_LISTS = ("queue", "wip", "scheduled", "finished", "failed", "canceled")


class TenantKeys:
    """Finds and deletes the keys of one tenant."""

    def __init__(self, valkey: ValkeyClient, prefix: str) -> None:
        self._valkey = valkey
        self._prefix = prefix

    async def list_jobs(self, tenant_id: str) -> list[str]:
        """List the ids of a tenant's jobs, in any state."""
        start = f"{self._prefix}:job:"
        found: list[str] = []
        async for keys in self._scan(f"{start}*"):
            async with translate_errors():
                tenants = await self._valkey.call_all([["HGET", key, "tenant"] for key in keys])
            pairs = zip(keys, tenants, strict=True)
            found += [key.removeprefix(start) for key, tenant in pairs if tenant == tenant_id.encode()]
        return found

    async def forget(self, tenant_id: str) -> None:
        """Delete what is kept of a tenant beside its jobs, which are to be deleted before."""
        async for keys in self._scan(f"{self._prefix}:recent:{_escape(tenant_id)}:*"):
            await self._delete(keys)
        names = [f"{queue}{lane}@{tenant_id}" for queue in QueueName for lane in LANES]
        rings = [key async for keys in self._scan(f"{self._prefix}:ring:*") for key in keys]
        commands: list[Command] = [
            *(["HDEL", f"{self._prefix}:{kind}", *names] for kind in _BY_NAME),
            *(["DEL", *(f"{self._prefix}:{kind}:{name}" for name in names)] for kind in _OF_LISTS),
            *(["ZREM", ring, *names] for ring in rings),
            ["SREM", f"{self._prefix}:queues", *(f"{self._prefix}:queue:{name}" for name in names)],
        ]
        async with translate_errors():
            await self._valkey.call_all(commands)

    async def find_left(self, tenant_id: str) -> list[str]:
        """Find every key that names a tenant in its name, its fields, its members, or its values. Read-only."""
        left: list[str] = []
        async for keys in self._scan(f"{self._prefix}:*"):
            async with translate_errors():
                kinds = await self._valkey.call_all([["TYPE", key] for key in keys])
                contents = await self._valkey.call_all(
                    [_read(key, kind) for key, kind in zip(keys, kinds, strict=True)]
                )
            pairs = zip(keys, contents, strict=True)
            left += [key for key, content in pairs if _names(key, tenant_id) or _holds(content, tenant_id)]
        return sorted(left)

    async def _delete(self, keys: Iterable[str]) -> None:
        async with translate_errors():
            await self._valkey.call("DEL", *keys)

    async def _scan(self, pattern: str) -> AsyncIterator[list[str]]:
        cursor: Any = b"0"
        while True:
            async with translate_errors():
                cursor, keys = await self._valkey.call("SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED)
            if keys:
                yield [key.decode() for key in keys]
            if cursor == b"0":
                return


def _read(key: str, kind: Any) -> Command:
    """The command that reads what may name a tenant: ids alone are in lists, and a stream's job has a hash."""
    if kind in (b"hash", "hash"):
        return ["HGETALL", key]
    if kind in (b"set", "set"):
        return ["SMEMBERS", key]
    return ["ZRANGE", key, 0, -1] if kind in (b"zset", "zset") else ["EXISTS", key]


def _names(text: str, tenant_id: str) -> bool:
    return re.search(rf"(?:^|[:@]){re.escape(tenant_id)}(?:$|:)", text) is not None


def _holds(content: Any, tenant_id: str) -> bool:
    if not isinstance(content, list | set):
        return False
    texts = [one.decode(errors="replace") for one in content if isinstance(one, bytes) and len(one) < SCANNED]
    return any(text == tenant_id or text.endswith(f"@{tenant_id}") for text in texts)


def _escape(text: str) -> str:
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)
