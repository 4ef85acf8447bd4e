"""The large parts of jobs, kept in the blob store so that jobs in Valkey stay small.

A job with large arguments or a large request holds the name of a blob instead. The blob is written before the job is
queued and deleted with it. The name begins with the job's id and random digits, so that no two enqueues share a blob
and the blob of a refused job can be deleted safely. It ends with the SHA-256 of the content, which readers verify.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import re
import secrets
import time
from dataclasses import dataclass, replace
from functools import cached_property

from ragq.errors import GoneError, PermanentError, TooLargeError, UnavailableError
from ragq.models import JobFunction
from ragq.records import (
    Arguments,
    Job,
    Reference,
    Request,
    RequestContent,
    change_request,
    read_arguments,
    read_content,
    write_payload,
    write_record,
)
from ragq.settings import Settings
from ragq.storage.blobs import BlobStore

FOLDER = "requests"
LARGE_BYTES = 32 << 10  # arguments or a request over this size send both to the blob store
MAX_SHOWN_BYTES = 256 << 10  # of the request's other fields, which stay with the job
UNUSED_SECONDS = 60.0  # after this, a blob without a job is not just being queued
_NAME = re.compile(rf"{FOLDER}/(.+)\.[0-9a-f]{{16}}\.([0-9a-f]{{64}})")


@dataclass(frozen=True, slots=True)
class Packed:
    """A job as it is queued.

    Attributes:
        data: RQ's payload.
        request: The part of the request that stays with the job.
        name: Name of the blob; empty when there is none.
        size: Bytes in Valkey and in the blob store together.
    """

    data: bytes
    request: Request
    request_json: bytes
    name: str
    size: int


class Requests:
    """Reads and writes the parts of jobs that are in the blob store."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _blobs(self) -> BlobStore:
        return BlobStore(self._settings)  # created on first use, since that makes its folder

    async def pack(self, job_id: str, function: JobFunction, arguments: Arguments, request: Request) -> Packed:
        """Serialize a job's arguments and request; large ones go to the blob store.

        Raises:
            TooLargeError: The job exceeds `max_queued_bytes`, or the part that must stay with it is too large.
            UnavailableError: The blob store did not accept the bytes.
        """
        data, request_json = write_payload(function, arguments), write_record(request)
        size, most = len(data) + len(request_json), self._settings.max_queued_bytes
        if 0 < most < size:
            raise TooLargeError(f"A request of {size} bytes is over RAGQ_MAX_QUEUED_BYTES, {most}: shorten it.")
        if max(len(data), len(request_json)) <= LARGE_BYTES:
            return Packed(data, request, request_json, "", size)
        content, digest = await asyncio.to_thread(_write_content, arguments, request)
        name = f"{FOLDER}/{job_id}.{secrets.token_hex(8)}.{digest}"
        shown = change_request(request, input="", history=[], blob=name)
        request_json = write_record(shown)
        if len(request_json) > MAX_SHOWN_BYTES:
            raise TooLargeError(f"A request may have at most {MAX_SHOWN_BYTES} bytes besides its input: shorten it.")
        await self._put(name, content)
        return Packed(write_payload(function, Reference(name)), shown, request_json, name, size)

    async def _put(self, name: str, content: bytes) -> None:
        started = time.time()
        await self._blobs.put(name, io.BytesIO(content))
        if time.time() - started > UNUSED_SECONDS / 2:  # the machine slept: it may be deleted as unused
            raise UnavailableError("Storing the request took too long: send it again.", code="blobs_unavailable")

    async def unpack(self, job_id: str, function: JobFunction, arguments: Arguments | Reference) -> Arguments:
        """Return a job's arguments, from the blob store if they are there.

        Raises:
            GoneError: They are lost.
            PermanentError: The job names a blob that is not its own.
        """
        if not isinstance(arguments, Reference):
            return arguments
        written, _, _ = (await self._read(job_id, arguments.blob)).partition(b"\n")
        return await asyncio.to_thread(read_arguments, function, written)

    async def complete(self, job: Job) -> Job:
        """Return the job with its whole request, as the caller sent it.

        Raises:
            GoneError: A part of the request is lost.
        """
        if job.request.blob is None:
            return job
        _, _, written = (await self._read(job.id, job.request.blob)).partition(b"\n")
        content = await asyncio.to_thread(read_content, written)
        return replace(job, request=change_request(job.request, input=content.input, history=content.history))

    async def _read(self, job_id: str, name: str) -> bytes:
        match = _NAME.fullmatch(name)
        if match is None or match[1] != job_id:
            raise PermanentError(
                "The job names a blob that is not its own, which was not read.", code="invalid_payload"
            )
        try:
            content = b"".join([piece async for piece in self._blobs.stream(name)])
        except UnavailableError as error:
            if error.code != "blob_missing":
                raise
            raise _lost(job_id) from error
        if await asyncio.to_thread(_digest, content) != match[2]:
            raise _lost(job_id)
        return content

    async def discard(self, job: Job | None) -> None:
        """Delete the blob of a deleted job, if it has one; if that fails, the housekeeping does it later."""
        match = _NAME.fullmatch(job.request.blob) if job and job.request.blob else None
        if job and match and match[1] == job.id:
            await self.delete(match[0])

    async def delete(self, name: str) -> None:
        """Delete a blob; if the blob store is down, the housekeeping does it later."""
        with contextlib.suppress(UnavailableError):
            await self._blobs.delete(name)

    async def delete_parts(self) -> None:
        """Delete partial blobs that killed processes left."""
        await self._blobs.delete_old_parts(FOLDER, UNUSED_SECONDS)

    async def list_settled(self, older_than_seconds: float) -> dict[str, str]:
        """The names of blobs older than this, each with the id of its job."""
        names = await self._blobs.list_older(FOLDER, older_than_seconds)
        return {name: match[1] for name in names if (match := _NAME.fullmatch(name))}


def _write_content(arguments: Arguments, request: Request) -> tuple[bytes, str]:
    """Serialize two lines, the arguments for the worker and the request for the API: each parses only its own."""
    unshown = RequestContent(input=request.input, history=request.history)
    content = b"%b\n%b" % (write_record(arguments), write_record(unshown))
    return content, _digest(content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _lost(job_id: str) -> GoneError:
    return GoneError(f"The request of '{job_id}' is no longer in the blob store: send it again.", code="request_lost")
