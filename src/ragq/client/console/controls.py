"""Pauses of queues, and drains of workers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from ragq.client.valkey_client import ValkeyClient, translate_errors
from ragq.models import QueueName


class Controls:
    """Tells Valkey and the workers what an operator wants."""

    def __init__(self, valkey: ValkeyClient, prefix: str, run: Callable[..., Awaitable[Any]]) -> None:
        self._valkey = valkey
        self._prefix = prefix
        self._run = run

    async def set_paused(self, queue: QueueName, *, paused: bool) -> None:
        """Let no worker claim jobs of a queue, or let them go on. What is accepted waits, and its deadline counts."""
        await self._run("pause", queue, int(paused))

    async def list_paused(self) -> set[str]:
        """List the queues that are paused."""
        async with translate_errors():
            return {name.decode() for name in await self._valkey.call("SMEMBERS", f"{self._prefix}:paused")}

    async def drain(self, worker: str) -> bool:
        """Let a worker finish its jobs, claim no others and end; False if there is none of this name."""
        command = json.dumps({"command": "shutdown"})
        async with translate_errors():
            return bool(await self._valkey.call("PUBLISH", f"{self._prefix}:pubsub:{worker}", command))
