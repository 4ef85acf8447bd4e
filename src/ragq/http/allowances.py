"""The headers that tell a client what is left of its limits, as OpenAI sends them."""

from __future__ import annotations

from starlette.types import Message, Send

from ragq.accounts.limits import say_seconds
from ragq.accounts.payer import Allowance, Payer

ALLOWANCE_HEADERS = tuple(
    f"x-ratelimit-{part}-{name}" for name in ("requests", "tokens") for part in ("limit", "remaining", "reset")
)


def add_allowances(send: Send, payer: Payer) -> Send:
    """Add the headers to the response of a request for which something was counted, or refused."""

    async def send_with_allowances(message: Message) -> None:
        if message["type"] == "http.response.start" and payer.allowances:
            message["headers"] = [*message["headers"], *_headers(payer.allowances)]
        await send(message)

    return send_with_allowances


def _headers(allowances: tuple[Allowance, ...]) -> list[tuple[bytes, bytes]]:
    """The headers of the tighter of two limits of a kind: the tenant's or the key's."""
    tightest: dict[str, Allowance] = {}
    for one in sorted(allowances, key=lambda one: -one.remaining):
        tightest[one.name] = one
    return [
        (f"x-ratelimit-{part}-{name}".encode(), value.encode())
        for name, one in tightest.items()
        for part, value in (
            ("limit", str(one.limit)),
            ("remaining", str(one.remaining)),
            ("reset", say_seconds(one.reset_seconds)),
        )
    ]
