"""Call the LLM client against a fake server that sends what a test wants."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from ragq.client.llm_client import LlmClient
from ragq.client.llm_stream import Completion
from ragq.settings import Settings
from tests.fake_llm import Behaviour, FakeLlm, running_fake_llm

ASKED = [{"role": "user", "content": "Where is the harbour of Quorra?"}]


class Said:
    """Listens to an answer: the pieces with their kinds, in order."""

    def __init__(self) -> None:
        self.pieces: list[tuple[str, str]] = []

    def __call__(self, kind: str, piece: str) -> None:
        self.pieces.append((kind, piece))

    def of(self, kind: str) -> str:
        return "".join(piece for one, piece in self.pieces if one == kind)


def new_client(base_url: str, **changes: Any) -> LlmClient:
    """A client without a key, whose settings come from the arguments alone."""
    values: dict[str, Any] = {"llm_base_url": base_url, "llm_model": "fake"}
    return LlmClient(Settings(_env_file=None, **(values | changes)))


def body_of(*deltas: dict[str, Any], finish: str | None = "stop", **more: Any) -> str:
    """A stream with one event for each delta, and its end."""
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    if finish is not None:
        choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    events = [json.dumps({"choices": [choice], **more}) for choice in choices]
    return "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])


def texts(*pieces: str) -> list[dict[str, Any]]:
    """A delta for each piece of text."""
    return [{"content": piece} for piece in pieces]


@contextlib.asynccontextmanager
async def calling(behaviour: Behaviour | None = None, **changes: Any) -> AsyncIterator[tuple[LlmClient, FakeLlm]]:
    """A client and the fake server that it calls."""
    async with running_fake_llm(behaviour) as fake:
        client = new_client(fake.base_url, **changes)
        try:
            yield client, fake
        finally:
            await client.close()


async def ask_for(body: str, *, piece: int = 0, said: Said | None = None, **options: Any) -> Completion:
    """Ask a server that answers with this body, in pieces of so many bytes."""
    async with calling(Behaviour(raw=body, piece=piece)) as (client, _):
        return await client.complete(ASKED, on_delta=said, options=options)
