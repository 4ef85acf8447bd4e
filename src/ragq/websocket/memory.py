"""The responses that a connection may continue although they were not stored."""

from __future__ import annotations

from ragq.http.access import MAX_JSON_BYTES
from ragq.records import Job, write_record

MAX_RESPONSES = 16


class Memory:
    """The latest such response of each `stream_id`, kept while the connection lasts, and nowhere else.

    Above `MAX_RESPONSES`, or MAX_JSON_BYTES of their requests together, the oldest are forgotten.
    """

    def __init__(self) -> None:
        self._kept: dict[str | None, tuple[Job, int]] = {}

    def keep(self, stream_id: str | None, job: Job) -> None:
        """Keep the latest response of a stream in the place of the one before."""
        self._kept.pop(stream_id, None)
        self._kept[stream_id] = job, len(write_record(job.request))
        while len(self._kept) > MAX_RESPONSES or sum(size for _, size in self._kept.values()) > MAX_JSON_BYTES:
            del self._kept[next(iter(self._kept))]

    def find(self, response_id: object) -> Job | None:
        """The response with this id, which any stream may continue; None if it is not kept."""
        return next((job for job, _ in self._kept.values() if job.id == response_id), None)

    def forget(self, response_id: object) -> None:
        """Keep this response no longer."""
        self._kept = {stream_id: kept for stream_id, kept in self._kept.items() if kept[0].id != response_id}
