"""Bodies that change limits."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from pydantic import Field

from ragq.accounts.limits import KeyLimits
from ragq.schemas.objects import Body

LimitsT = TypeVar("LimitsT", bound=KeyLimits)
MOST = 2**53
Rate = Annotated[int | None, Field(ge=1, le=1_000_000)]
Amount = Annotated[int | None, Field(ge=0, le=MOST)]


class KeyLimitsUpdate(Body):
    """Limits to change; null removes one, and what is left out stays."""

    requests_per_minute: Rate = None
    queued: Amount = None
    tokens_per_day: Amount = None

    def change(self, limits: LimitsT) -> LimitsT:
        """The limits with these changes."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return msgspec.structs.replace(limits, **given)


class TenantLimitsUpdate(KeyLimitsUpdate):
    """Limits and budgets to change; null removes one, and what is left out stays."""

    documents: Amount = None
    bytes: Amount = None
    cost_per_month: float | None = Field(None, ge=0, le=MOST, allow_inf_nan=False)
    tokens_per_month: Amount = None
