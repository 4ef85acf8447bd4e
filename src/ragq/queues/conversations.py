"""The items of conversations: those that responses add when they have ended, and the history they are for a question.

A response is noted in its conversation before it is queued. Whoever reads the conversation first settles its ended
responses, and the archiver settles those that nobody reads. To settle is to append the items, which happens once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from ragq.accounts.views import Viewer, tenant_of
from ragq.context import Context
from ragq.errors import GoneError, NotFoundError, PermanentError
from ragq.models import Message
from ragq.queues.history import find_job
from ragq.records import Job
from ragq.schemas.messages import InputItem, input_of, read_items
from ragq.schemas.responses import render_input, render_output

log = structlog.get_logger(__name__)

UNQUEUED_SECONDS = 60.0  # after this, a response without a job is not just being queued


async def read_stored(context: Context, tenant: Viewer, conversation_id: str) -> list[Message]:
    """Read the last items of a conversation as the messages before a question.

    Raises:
        NotFoundError: This tenant has no conversation with this id.
    """
    await context.conversations.get(tenant, conversation_id, param="conversation")
    await settle_ended(context, tenant, conversation_id)
    items = await context.conversations.list_recent(tenant_of(tenant), conversation_id)
    return read_items([InputItem.model_validate(item) for item in items])


async def settle_ended(context: Context, tenant: Viewer, conversation_id: str) -> None:
    """Append the items of the responses that have ended. Every look at a conversation's items begins with this."""
    for waiting in await context.conversations.list_open(tenant, conversation_id):
        try:
            job = await find_job(context, tenant_of(tenant), waiting.response_id)
        except (NotFoundError, GoneError):  # deleted or expired
            await context.conversations.forget_response(tenant, waiting.response_id)
            continue
        if job is not None:
            await settle(context, job)
        elif waiting.age_seconds > UNQUEUED_SECONDS:
            await context.conversations.forget_response(tenant, waiting.response_id)


async def settle(context: Context, job: Job) -> None:
    """Append the input and output of a response to its conversation, if it has one and has ended. Idempotent.

    A response without an answer adds nothing.
    """
    conversation_id = job.request.conversation
    if conversation_id is None or not job.status.is_final:
        return
    items: list[Mapping[str, Any]] = []
    if job.answered:
        try:
            whole = await context.queue.requests.complete(job)
        except PermanentError as error:
            log.warning("conversation_without_input", response_id=job.id, error=str(error))
        else:
            items += render_input(job.id, input_of(whole))
        items += render_output(job, job.answered, results=True, page="")
    written = [(item["id"], {name: value for name, value in item.items() if name != "id"}) for item in items]
    await context.conversations.settle(job.tenant_id, conversation_id, job.id, written)
