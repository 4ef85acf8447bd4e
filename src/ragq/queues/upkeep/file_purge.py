"""Delete the answers in which a file stands."""

from __future__ import annotations

from ragq.context import Context
from ragq.queues.history import delete_job, find_job
from ragq.queues.upkeep.housekeeping import archive_ended


async def purge_file(context: Context, tenant_id: str, file_id: str) -> int:
    """Delete all answers, and items of conversations, that cite a file or show a passage of it; returns how many.

    An answer is deleted whole: without its citations, its text might still be the document's. A question that has read
    the file and is being answered meanwhile is not seen.
    """
    await archive_ended(context)  # so that what has ended is found in one place
    deleted = 0
    async for response_ids in context.archive.find_mentions(tenant_id, file_id):
        for response_id in response_ids:
            if job := await find_job(context, tenant_id, response_id):
                await delete_job(context, job)
                deleted += 1
    return deleted + await context.conversations.delete_mentions(tenant_id, file_id)
