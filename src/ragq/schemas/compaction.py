"""A conversation made short, as the content of OpenAI's `compaction` item, which the client keeps and sends back.

It is named `encrypted_content` and is not encrypted: it holds nothing that the client did not send or was not sent, and
a client that changes it could as well change its messages.
"""

from __future__ import annotations

import base64

from ragq.errors import InvalidRequestError
from ragq.json_records import UnreadableRecordError
from ragq.models import Message
from ragq.records import Compaction, Spoken, read_compaction, write_record
from ragq.schemas.checks import check_text


def write_content(messages: list[Message]) -> str:
    """Serialize the messages that stand for a conversation."""
    spoken = [Spoken(message["role"], message["content"]) for message in messages]
    return base64.urlsafe_b64encode(write_record(Compaction(spoken))).decode()


def read_content(content: str | None, param: str) -> list[Message]:
    """Read the messages of a compaction.

    Raises:
        InvalidRequestError: It is not one of ragq's.
    """
    try:
        compaction = read_compaction(base64.b64decode(content or "", altchars=b"-_", validate=True))
    except (ValueError, UnreadableRecordError) as error:
        raise InvalidRequestError(
            "This compaction was not made by ragq: send the conversation itself, or compact it here.",
            code="invalid_value",
            param=param,
        ) from error
    for message in compaction.messages:
        check_text(message.content, param)
    return [{"role": message.role, "content": message.content} for message in compaction.messages]
