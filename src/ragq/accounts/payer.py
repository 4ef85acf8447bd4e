"""Who pays for what a request puts in.

The payer is ambient, as a log's context is: `Access` sets it for each request, the WebSocket for each turn, and a batch for
each line. So nothing that asks a question can forget to pass it on. Work that no request asked for has no payer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

from ragq.accounts.limits import NO_KEY_LIMITS, NO_LIMITS, KeyLimits, Limits


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a limit.

    Attributes:
        reset_seconds: Until all of it is there again.
    """

    name: Literal["requests", "tokens"]
    limit: int
    remaining: int
    reset_seconds: float


@dataclass(slots=True)
class Payer:
    """Who pays for a request.

    Attributes:
        key_id: Empty for `RAGQ_API_KEY`, which has no limits; for someone who signed in `person:`, a hash of the provider,
            and its id of them.
        is_admitted: The request was counted, so that its other jobs are not.
        counting: Held while the request is counted, by the first of its jobs; only where there are limits.
        allowances: What the request left of the limits, for the response's headers.
    """

    tenant_id: str
    key_id: str = ""
    limits: Limits = NO_LIMITS
    key_limits: KeyLimits = NO_KEY_LIMITS
    is_admitted: bool = False
    is_limited: bool = field(init=False)
    counting: asyncio.Lock = field(init=False)
    allowances: tuple[Allowance, ...] = ()

    def __post_init__(self) -> None:
        self.is_limited = self.limits != NO_LIMITS or self.key_limits != NO_KEY_LIMITS
        if self.is_limited:
            self.counting = asyncio.Lock()

    def for_another_request(self) -> Payer:
        """The same payer, of a request that is not counted yet."""
        return Payer(self.tenant_id, self.key_id, self.limits, self.key_limits)


_PAYER: ContextVar[Payer | None] = ContextVar("payer", default=None)


def current_payer() -> Payer | None:
    """Who pays for what this task does; None if no request asked for it."""
    return _PAYER.get()


@contextmanager
def paid_by(payer: Payer | None) -> Iterator[None]:
    """Let a payer pay until the end of the block, also for the tasks that begin in it."""
    token = _PAYER.set(payer)
    try:
        yield
    finally:
        _PAYER.reset(token)
