"""Keep chat completions that are asked for with `store`, and find them again."""

from __future__ import annotations

import contextlib

from ragq.accounts.views import Viewer, tenant_of, view_of
from ragq.context import Context
from ragq.errors import NotFoundError, TransientError
from ragq.records import Job
from ragq.storage.archive import ChatRecord, is_kept


async def keep(context: Context, job: Job) -> None:
    """Archive an ended chat completion before its caller sees it, so that it is listed from then on.

    If PostgreSQL is away, the archiver does it later.
    """
    if is_kept(job):
        with contextlib.suppress(TransientError):
            await context.archive.store([job])


async def find_chat(context: Context, tenant: Viewer, chat_id: str) -> ChatRecord:
    """Find a stored chat completion, also one that was just streamed and is not archived yet.

    Raises:
        NotFoundError: This tenant stored no chat completion with this id.
    """
    try:
        return await context.chats.get(tenant, chat_id)
    except NotFoundError:
        job = await context.queue.fetch(chat_id, tenant_of(tenant))
        if job is None or not is_kept(job) or not view_of(tenant).owns(job.request.key_id):
            raise
    await context.archive.store([job])
    return await context.chats.get(tenant, chat_id)
