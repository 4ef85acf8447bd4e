"""What keeps the whole system in order, done by any process that is up: there is no leader.

Each process runs these loops. Valkey sees to it that the work is done once in a period by all of them together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from ragq import metrics
from ragq.client.rq_client import JobQueue
from ragq.errors import UnavailableError

log = structlog.get_logger(__name__)

REAP_SECONDS = 1.0


async def guarded(part: Callable[[], Awaitable[None]]) -> None:
    """Run a part of a process: whatever goes wrong is logged, and the part starts again."""
    while True:
        try:
            return await part()
        except UnavailableError as error:
            log.warning("waiting_for_service", part=part.__name__, error=error.message)
        except Exception:  # the outermost loop of a part
            log.exception("worker_part_failed", part=part.__name__)
        await asyncio.sleep(1)


async def reap(queue: JobQueue) -> None:
    """Put back what silent workers held, wake delayed jobs, and end queued ones past their deadline."""
    reaped = await queue.reap()
    for job_id in reaped.put_back:
        log.warning("job_put_back", job_id=job_id, reason="its worker was silent for a whole lease")
    for job_id in reaped.late:
        log.warning("job_late", job_id=job_id, reason="no worker began it by its deadline")
    metrics.PUT_BACK.inc(len(reaped.put_back))
    metrics.LATE.inc(len(reaped.late))
