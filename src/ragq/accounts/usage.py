"""What a job cost: counted by the worker that ran it, and added up by day in PostgreSQL."""

from __future__ import annotations

from typing import Annotated

import msgspec


class JobUsage(msgspec.Struct, omit_defaults=True, tag_field="record", tag="usage/1"):
    """What a job cost.

    Attributes:
        model: That was asked: the LLM, `extractive` without one, or the embedding model.
        requests: Jobs; 0 for what a job cost that did not end.
        cached_tokens: Of the input, as the LLM says.
        estimated_tokens: Of input and output, those that the LLM did not count.
        waited_ms: In the queue.
        retrieve_ms: Spent on the search.
        answer_ms: Spent on the answer.
        documents: That were put into a store.
        pages: Of these: pages, slides, sheets or chapters.
    """

    model: str = ""
    requests: int = 1
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    estimated_tokens: int = 0
    waited_ms: int = 0
    retrieve_ms: int = 0
    answer_ms: int = 0
    documents: int = 0
    pages: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class UsageEntry(msgspec.Struct, frozen=True):
    """What a job cost, as it waits in Valkey to be added up.

    Attributes:
        id: (milliseconds since 1970, number within these) of its end; later entries have larger ids.
        key_id: Empty for `RAGQ_API_KEY`.
    """

    id: tuple[int, int]
    tenant_id: str
    key_id: str
    usage: JobUsage


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a million tokens cost."""

    input: Annotated[float, msgspec.Meta(ge=0)] = 0
    output: Annotated[float, msgspec.Meta(ge=0)] = 0


_DECODER = msgspec.json.Decoder(JobUsage)


def write_usage(usage: JobUsage) -> bytes:
    return msgspec.json.encode(usage)


def read_usage(data: bytes) -> JobUsage:
    """Parse what `write_usage` wrote.

    Raises:
        msgspec.MsgspecError: It is something else.
    """
    return _DECODER.decode(data)


def read_prices(text: str) -> dict[str, Price]:
    """Parse the prices of models, by their names, from JSON.

    Raises:
        msgspec.MsgspecError: They are something else.
    """
    return msgspec.json.decode(text, type=dict[str, Price]) if text else {}
