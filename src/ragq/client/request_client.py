"""The large parts of jobs: kept in the blob store, so that what travels through Valkey is small.

A job whose arguments or request are large carries a name instead. The bytes are written before the job is queued and
go when it goes. The name begins with the job's id and has random digits, so that no two enqueues share bytes: who
deletes what was written for a refused job takes nothing from another. It ends with the SHA-256 of the content, which is
checked by whoever reads it.
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
LARGE_BYTES = 32 << 10  # of the arguments, or of the request, from which on both do not travel through Valkey
MAX_SHOWN_BYTES = 256 << 10  # of the other fields, which stay with the job
UNUSED_SECONDS = 60.0  # bytes without a job are no longer just being queued
_NAME = re.compile(rf"{FOLDER}/(.+)\.[0-9a-f]{{16}}\.([0-9a-f]{{64}})")


@dataclass(frozen=True, slots=True)
class Packed:
    """A job as it travels.

    Attributes:
        data: RQ's payload.
        request: What stays with the job.
        name: Of the bytes in the blob store; empty when there are none.
        size: Bytes that wait, in Valkey and in the blob store together.
    """

    data: bytes
    request: Request
    request_json: bytes
    name: str
    size: int


class Requests:
    """The parts of jobs that do not travel through Valkey."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _blobs(self) -> BlobStore:
        return BlobStore(self._settings)  # not before it is needed: it makes its folder

    async def pack(self, job_id: str, function: JobFunction, arguments: Arguments, request: Request) -> Packed:
        """Write a job's arguments and request, what is large of them to the blob store.

        Raises:
            TooLargeError: Alone it is more than may wait, or what must stay with the job is too large.
            UnavailableError: The blob store does not take the bytes.
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
            raise TooLargeError(f"Beside its input a request has at most {MAX_SHOWN_BYTES} bytes: shorten it.")
        await self._put(name, content)
        return Packed(write_payload(function, Reference(name)), shown, request_json, name, size)

    async def _put(self, name: str, content: bytes) -> None:
        started = time.time()
        await self._blobs.put(name, io.BytesIO(content))
        if time.time() - started > UNUSED_SECONDS / 2:  # the machine slept: they may be deleted as unused by now
            raise UnavailableError("Storing the request took too long: send it again.", code="blobs_unavailable")

    async def unpack(self, job_id: str, function: JobFunction, arguments: Arguments | Reference) -> Arguments:
        """Give a job's arguments back, wherever they are.

        Raises:
            GoneError: They are lost.
            PermanentError: The job names bytes that are not its own.
        """
        if not isinstance(arguments, Reference):
            return arguments
        written, _, _ = (await self._read(job_id, arguments.blob)).partition(b"\n")
        return await asyncio.to_thread(read_arguments, function, written)

    async def complete(self, job: Job) -> Job:
        """Give a job back its whole request, as the caller sent it.

        Raises:
            GoneError: A part of it is lost.
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
                "The job names bytes that are not its own. They were not read.", code="invalid_payload"
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
        """Delete what a job that has gone had in the blob store; where that fails, the housekeeping does it later."""
        match = _NAME.fullmatch(job.request.blob) if job and job.request.blob else None
        if job and match and match[1] == job.id:
            await self.delete(match[0])

    async def delete(self, name: str) -> None:
        """Delete bytes, now or, when the blob store is away, by the housekeeping."""
        with contextlib.suppress(UnavailableError):
            await self._blobs.delete(name)

    async def delete_parts(self) -> None:
        """Delete what processes that were killed while they wrote have left."""
        await self._blobs.delete_old_parts(FOLDER, UNUSED_SECONDS)

    async def list_settled(self, older_than_seconds: float) -> dict[str, str]:
        """List the names of bytes that were written longer ago, each with the id of its job."""
        names = await self._blobs.list_older(FOLDER, older_than_seconds)
        return {name: match[1] for name in names if (match := _NAME.fullmatch(name))}


def _write_content(arguments: Arguments, request: Request) -> tuple[bytes, str]:
    """Write a line for the worker and one for who reads the request: neither needs to parse the other's."""
    unshown = RequestContent(input=request.input, history=request.history)
    content = b"%b\n%b" % (write_record(arguments), write_record(unshown))
    return content, _digest(content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _lost(job_id: str) -> GoneError:
    return GoneError(f"What '{job_id}' was asked with is no longer in the blob store: ask again.", code="request_lost")
