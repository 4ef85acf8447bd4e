"""The limits of who pays for a job, as the enqueue script gets them, and what it says of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import msgspec

from ragq.accounts.limits import say_seconds
from ragq.accounts.payer import Allowance, Payer, current_payer
from ragq.errors import OverloadedError, QuotaError
from ragq.models import JobFunction

QUESTIONS = (JobFunction.PROCESS_QUERY,)
TOKEN_USERS = (*QUESTIONS, JobFunction.PROCESS_EMBEDDING)
WORDS = {
    "requests": "requests a minute",
    "queued": "questions queued at once",
    "tokens": "tokens a day",
    "budget": "budget of this month",
}


@dataclass(frozen=True, slots=True)
class Metering:
    """What is counted of one job. Documents are limited where their files are stored.

    Attributes:
        payer: None if no request asked for the job.
    """

    payer: Payer | None
    function: JobFunction

    @classmethod
    def of(cls, tenant_id: str, function: JobFunction) -> Metering:
        """The metering of a job that this task is about to queue."""
        payer = current_payer()
        return cls(payer if payer and payer.tenant_id == tenant_id else None, function)

    @property
    def fields(self) -> dict[str, str]:
        """Fields of the job's hash."""
        return {"key": self.payer.key_id} if self.payer and self.payer.key_id else {}

    def counting(self) -> AbstractAsyncContextManager[object]:
        """Let one job of a request be counted before the others."""
        payer = self._limited_payer
        return nullcontext() if payer is None or payer.is_admitted else payer.counting

    def write_limits(self) -> bytes:
        """The limits for the script; empty if there are none."""
        payer = self._limited_payer
        return _write_limits(payer, self.function) if payer else b""

    @property
    def _limited_payer(self) -> Payer | None:
        is_limited = self.payer and self.payer.is_limited and self.function is not JobFunction.PROCESS_DOCUMENT
        return self.payer if is_limited else None

    def note(self, left: Sequence[Any], *, is_admitted: bool) -> None:
        """Note what a request left of its limits, when it is counted.

        Args:
            left: A flat list of name, limit, remaining and ms until the limit is whole again.
        """
        payer = self._limited_payer
        if payer is None or payer.is_admitted:
            return
        payer.is_admitted = is_admitted
        payer.allowances = tuple(
            Allowance(name.decode(), limit, remaining, reset_ms / 1000)
            for name, limit, remaining, reset_ms in zip(*[iter(left)] * 4, strict=True)
        )

    def refusal(self, why: str, retry_ms: int) -> OverloadedError | None:
        """The error for what the script refused; None if no limit was the reason."""
        name, _, scope = why.partition(" ")
        if self.payer is None or name not in WORDS:
            return None
        whose = "key" if scope.startswith("k:") else "tenant"
        seconds = retry_ms / 1000
        if name == "budget":
            return QuotaError(
                f"The tenant's {WORDS[name]} is used up. It begins again in {say_seconds(seconds)}; the operator can raise it.",
                retry_after_seconds=seconds,
            )
        limits = self.payer.key_limits if whose == "key" else self.payer.limits
        most = {
            "requests": limits.requests_per_minute,
            "queued": limits.queued,
            "tokens": limits.tokens_per_day,
        }[name]
        return OverloadedError(
            f"Rate limit reached for this {whose}: {most} {WORDS[name]}. Try again in {say_seconds(seconds)}.",
            retry_after_seconds=seconds,
        )


def _write_limits(payer: Payer, function: JobFunction) -> bytes:
    named = ((f"t:{payer.tenant_id}", payer.limits), (f"k:{payer.key_id}", payer.key_limits))
    scopes = [
        {"scope": scope, "requests": one.requests_per_minute, "queued": one.queued, "tokens": one.tokens_per_day}
        for scope, one in named
    ]
    limits: dict[str, Any] = {
        "scopes": [{name: value for name, value in one.items() if value is not None} for one in scopes],
        "is_counted": payer.is_admitted,
        "is_question": function in QUESTIONS,
        "uses_tokens": function in TOKEN_USERS,
    }
    if payer.limits.has_budget and function in TOKEN_USERS:
        limits["tenant"] = payer.tenant_id
    return msgspec.json.encode(limits)
