"""What was said before a question: earlier responses, and items that the input refers to."""

from __future__ import annotations

from typing import Any

from ragq.accounts.views import Viewer, tenant_of, view_of
from ragq.context import Context
from ragq.errors import InvalidRequestError, NotFoundError
from ragq.models import Message
from ragq.rag.conversation import RULES
from ragq.records import Job
from ragq.schemas.messages import InputItem, input_of, message_of, read_items
from ragq.schemas.responses import RESPONSE_PREFIX, STATUS_WORDS, render_input, render_output
from ragq.storage.conversations import read_item

UNNEEDED_ITEMS = ("fs_", "rs_")  # searches and thoughts of earlier answers


async def find_response(
    context: Context, tenant: Viewer, response_id: str, *, param: str = "response_id", whole: bool = False
) -> Job:
    """Find a response.

    Args:
        whole: Also read the input and history of its request, which may be in the blob store.

    Raises:
        GoneError: The response has expired, or a part of its request is lost.
        NotFoundError: This tenant has no response with this id.
    """
    job = await find_job(context, tenant, response_id) if response_id.startswith(RESPONSE_PREFIX) else None
    if job is None:
        raise NotFoundError(f"No response found with id '{response_id[:80]}'.", param=param)
    return await context.queue.requests.complete(job) if whole else job


async def find_job(context: Context, tenant: Viewer, job_id: str) -> Job | None:
    """Read a job, from the archive if it has left Valkey; None if the viewer sees no job with this id.

    Raises:
        GoneError: The job has expired.
    """
    job = await context.queue.fetch(job_id, tenant_of(tenant))
    if job is None:
        return await context.archive.fetch(job_id, tenant)
    return job if view_of(tenant).owns(job.request.key_id) else None


async def delete_job(context: Context, job: Job) -> None:
    """Delete a question from the archive and the queue; one that has not ended is cancelled."""
    # First, so that a repeated request can complete the rest.
    await context.archive.delete(job.id, job.tenant_id, job.request.key_id)
    await context.queue.delete(job.id)
    await context.queue.requests.discard(job)


async def resolve_references(
    given: str | list[InputItem], context: Context, tenant: Viewer, *, name: str = "input"
) -> str | list[InputItem]:
    """Put the items that the input refers to in the place of the references.

    Args:
        name: The field of the request that has the items.

    Raises:
        NotFoundError: There is no such item.
    """
    if isinstance(given, str) or not any(_is_reference(item) for item in given):
        return given
    found: list[InputItem] = []
    for place, item in enumerate(given):
        if not _is_reference(item):
            found.append(item)
        elif not (item.id or "").startswith(UNNEEDED_ITEMS):
            found.append(await _find_item(context, tenant, item.id or "", param=f"{name}.{place}.id"))
    return found


def _is_reference(item: InputItem) -> bool:
    return item.type == "item_reference" or (item.type is None and item.role is None and item.id is not None)


async def _find_item(context: Context, tenant: Viewer, item_id: str, *, param: str) -> InputItem:
    response_id = RESPONSE_PREFIX + item_id.partition("_")[2].partition("_")[0]
    try:
        job = await find_response(context, tenant, response_id, param=param, whole=True)
    except NotFoundError:
        job = None
    if job is not None:
        items: list[Any] = [*render_input(response_id, input_of(job))]
        if job.answered:
            items += render_output(job, job.answered, results=False, page="")
        for item in items:
            if item["id"] == item_id:
                return InputItem.model_validate(item)
    if stored := await context.conversations.find_item(tenant, item_id):
        return InputItem.model_validate(read_item(stored))
    raise NotFoundError(f"No item found with id '{item_id[:80]}'.", param=param)


async def read_history(
    context: Context, tenant: Viewer, response_id: str, remembered: Job | None = None
) -> list[Message]:
    """Read the conversation that ends with a response.

    Args:
        remembered: A response that was not stored and that this client may yet continue.

    Raises:
        InvalidRequestError: The response was not stored or is not completed.
        NotFoundError: This tenant has no response with this id.
    """
    is_remembered = remembered is not None and remembered.id == response_id
    job = remembered if is_remembered else await _find_previous(context, tenant, response_id)
    assert job
    if job.answered is None:
        status = STATUS_WORDS[job.status]
        raise InvalidRequestError(
            f"The response '{response_id}' is {status}: only a completed one can be continued.",
            param="previous_response_id",
        )
    own = [message for message in read_items(input_of(job)) if message["role"] not in RULES]
    return [*job.request.history, *own[last_question(own) :], message_of(job.answered.answer)]


async def _find_previous(context: Context, tenant: Viewer, response_id: str) -> Job:
    param, code = "previous_response_id", "previous_response_not_found"
    try:
        job = await find_response(context, tenant, response_id, param=param, whole=True)
    except NotFoundError as error:
        raise NotFoundError(error.message, code=code, param=param) from error
    if not job.request.store:
        raise InvalidRequestError(
            f"The response '{response_id}' was not stored: send the whole conversation as input.",
            code=code,
            param=param,
        )
    return job


def last_question(messages: list[Message]) -> int:
    """The place of the user's last message; 0 if there is none."""
    return max((place for place, message in enumerate(messages) if message["role"] == "user"), default=0)
