"""OpenAI's Chat Completions: the same job as for a response, while the client's request waits for it."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from ragq.accounts.views import TenantView
from ragq.client.job import Enqueued
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals, shows
from ragq.models import new_id
from ragq.queues.history import delete_job
from ragq.queues.questions import answer_of, read_chat_question
from ragq.queues.stored_chats import find_chat, keep
from ragq.routes.context import (
    CLIENT_GONE,
    ApiContext,
    ContextDependency,
    Cursor,
    Order,
    Tenant,
    ask_chat,
    cut_page,
    find_asked,
    listing,
    wait_or_cancel,
)
from ragq.schemas.chat import ChatCompletionCreate
from ragq.schemas.chat_chunks import ChatChunks
from ragq.schemas.chat_completions import (
    ChatCompletion,
    StoredChatCompletion,
    StoredMessage,
    render_chat,
    render_messages,
    render_stored,
)
from ragq.schemas.objects import Body, Deleted, Listing
from ragq.schemas.questions import Metadata
from ragq.storage.archive import CHAT_PREFIX, ChatRecord, job_of
from ragq.storage.paging import Page

router = APIRouter(prefix="/v1/chat/completions", route_class=CheckedRoute)

METADATA = re.compile(r"metadata\[(.+)\]")


@router.post("", response_model=None, responses=shows(ChatCompletion, or_events=True) | refusals(404, 429))
async def create_chat_completion(
    body: ChatCompletionCreate,
    request: Request,
    context: ContextDependency,
    tenant: Tenant,
    x_stainless_retry_count: Annotated[int, Header(ge=0)] = 0,
) -> ChatCompletion | Response:
    """Answer the last question of a conversation, in pieces with `stream`. A client that disconnects cancels it."""
    asked = await read_chat_question(body, context, tenant)
    enqueued = await ask_chat(
        context, tenant, new_id(CHAT_PREFIX), asked, body, kind="chat", is_repeat=x_stainless_retry_count > 0
    )
    if body.stream:
        return await _open_stream(context, tenant, enqueued, body)
    job = await wait_or_cancel(request, context, tenant, enqueued)
    if job is None:
        return Response(status_code=CLIENT_GONE)
    await keep(context, job)
    return render_chat(job, answer_of(job), page=context.settings.page_url)


async def _open_stream(
    context: ApiContext, tenant: TenantView, enqueued: Enqueued, body: ChatCompletionCreate
) -> Response:
    job = await find_asked(context, tenant, enqueued)
    usage = bool(body.stream_options and body.stream_options.include_usage)
    chunks = ChatChunks(job, usage=usage, page=context.settings.page_url)
    return context.streams.open(job, chunks, kind=f"chat usage={usage}", cancel=enqueued.created)


class MetadataUpdate(Body):
    """New metadata, replacing the old."""

    metadata: Metadata | None


async def _page(limit: Annotated[int, Query(ge=1, le=100)] = 20, order: Order = "asc", after: Cursor = None) -> Page:
    return Page(limit, descending=order == "desc", after=after)


PageFromOldest = Annotated[Page, Depends(_page)]


@router.get("")
async def list_chat_completions(
    request: Request,
    page: PageFromOldest,
    context: ContextDependency,
    tenant: Tenant,
    model: Annotated[str | None, Query(max_length=200)] = None,
) -> Listing[StoredChatCompletion]:
    """List stored chat completions by age."""
    wanted = {match[1]: value for name, value in request.query_params.items() if (match := METADATA.fullmatch(name))}
    records = await context.chats.list_chats(tenant, page, model=model, metadata=wanted)
    return listing([_show(context, record) for record in records], page)


@router.get("/{completion_id}")
async def get_chat_completion(completion_id: str, context: ContextDependency, tenant: Tenant) -> StoredChatCompletion:
    """Show a stored chat completion."""
    return _show(context, await find_chat(context, tenant, completion_id))


@router.get("/{completion_id}/messages", responses=refusals(410))
async def list_messages(
    completion_id: str, page: PageFromOldest, context: ContextDependency, tenant: Tenant
) -> Listing[StoredMessage]:
    """List the messages of the request that a chat completion answered."""
    record = await find_chat(context, tenant, completion_id)
    job = await context.queue.requests.complete(job_of(record))
    return cut_page(render_messages(record.id, [one for one in job.request.input if isinstance(one, dict)]), page)


@router.post("/{completion_id}")
async def update_chat_completion(
    completion_id: str, body: MetadataUpdate, context: ContextDependency, tenant: Tenant
) -> StoredChatCompletion:
    """Replace the metadata of a stored chat completion."""
    await find_chat(context, tenant, completion_id)
    return _show(context, await context.chats.update(tenant, completion_id, body.metadata or {}))


@router.delete("/{completion_id}")
async def delete_chat_completion(completion_id: str, context: ContextDependency, tenant: Tenant) -> Deleted:
    """Delete a stored chat completion."""
    job = job_of(await find_chat(context, tenant, completion_id))
    await delete_job(context, job)
    return {"id": completion_id, "object": "chat.completion.deleted", "deleted": True}


def _show(context: ApiContext, record: ChatRecord) -> StoredChatCompletion:
    job = job_of(record)
    return render_stored(job, answer_of(job), record.metadata, page=context.settings.page_url)
