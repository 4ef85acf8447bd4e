"""Limits of a tenant and of a key."""

from __future__ import annotations

import msgspec


class KeyLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """Limits that a key may have beside its tenant's; None is no limit.

    Attributes:
        requests_per_minute: So many at once, then one each 60 / N seconds.
        queued: Questions that wait or are being answered.
        tokens_per_day: Read and written by the LLM, and embedded for clients, in a day of UTC.
    """

    requests_per_minute: int | None = None
    queued: int | None = None
    tokens_per_day: int | None = None


class Limits(KeyLimits, frozen=True, omit_defaults=True):
    """Limits and budgets of a tenant.

    Attributes:
        documents: Files, without the outputs of batches.
        bytes: Of these files.
        cost_per_month: In the currency of `RAGQ_PRICES`, in a month of UTC.
        tokens_per_month: As those of a day.
    """

    documents: int | None = None
    bytes: int | None = None
    cost_per_month: float | None = None
    tokens_per_month: int | None = None

    @property
    def has_budget(self) -> bool:
        return self.cost_per_month is not None or self.tokens_per_month is not None

    @property
    def has_storage(self) -> bool:
        return self.documents is not None or self.bytes is not None


NO_LIMITS, NO_KEY_LIMITS = Limits(), KeyLimits()


def say_seconds(seconds: float) -> str:
    """Write a duration as OpenAI's headers do: `20ms`, `1.5s`, `6m0s`, `2h0m0s`."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    whole, rest = divmod(milliseconds, 1000)
    hours, minutes, left = whole // 3600, whole // 60 % 60, whole % 60
    fraction = f".{rest:03d}".rstrip("0") if rest and not (hours or minutes) else ""
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{left}{fraction}s"
