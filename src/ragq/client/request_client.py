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
import json
import re
import secrets
import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from ragq.errors import GoneError, PermanentError, TooLargeError, UnavailableError
from ragq.models import Job, JobFunction
from ragq.settings import Settings
from ragq.storage.blobs import BlobStore

FOLDER = "requests"
REFERENCE = "$blob"  # no argument of a job function and no field of a request is called so
LARGE_BYTES = 32 << 10  # of the arguments, or of the request, from which on both do not travel through Valkey
UNSHOWN = ("input", "history")  # fields of a request that polling does not show: they alone leave it
MAX_SHOWN_BYTES = 256 << 10  # of the other fields, which stay with the job
UNUSED_SECONDS = 60.0  # bytes without a job are no longer just being queued
Part = Literal["arguments", "request"]
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

    data: str
    request: dict[str, Any]
    request_text: str
    name: str
    size: int


class Requests:
    """The parts of jobs that do not travel through Valkey."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _blobs(self) -> BlobStore:
        return BlobStore(self._settings)  # not before it is needed: it makes its folder

    async def pack(
        self, job_id: str, function: JobFunction, arguments: dict[str, Any], request: dict[str, Any]
    ) -> Packed:
        """Write a job's arguments and request, what is large of them to the blob store.

        Raises:
            TooLargeError: Alone it is more than may wait, or what must stay with the job is too large.
            UnavailableError: The blob store does not take the bytes.
        """
        data, text = _write_payload(function, arguments), json.dumps(request)
        size, most = len(data) + len(text), self._settings.max_queued_bytes
        if 0 < most < size:
            raise TooLargeError(f"A request of {size} bytes is over RAGQ_MAX_QUEUED_BYTES, {most}: shorten it.")
        if max(len(data), len(text)) <= LARGE_BYTES:
            return Packed(data, request, text, "", size)
        unshown = {name: request[name] for name in UNSHOWN if name in request}
        content, digest = await asyncio.to_thread(_write_content, arguments, unshown)
        name = f"{FOLDER}/{job_id}.{secrets.token_hex(8)}.{digest}"
        data = _write_payload(function, {REFERENCE: name})
        request = {field: value for field, value in request.items() if field not in UNSHOWN} | {REFERENCE: name}
        text = json.dumps(request)
        if len(text) > MAX_SHOWN_BYTES:
            raise TooLargeError(f"Beside its input a request has at most {MAX_SHOWN_BYTES} bytes: shorten it.")
        await self._put(name, content)
        return Packed(data, request, text, name, size)

    async def _put(self, name: str, content: bytes) -> None:
        started = time.time()
        await self._blobs.put(name, io.BytesIO(content))
        if time.time() - started > UNUSED_SECONDS / 2:  # the machine slept: they may be deleted as unused by now
            raise UnavailableError("Storing the request took too long: send it again.", code="blobs_unavailable")

    async def unpack(self, job_id: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Give a job's arguments back, wherever they are.

        Raises:
            GoneError: They are lost.
            PermanentError: The job names bytes that are not its own.
        """
        if REFERENCE not in arguments:
            return arguments
        return await self._read(job_id, arguments[REFERENCE], "arguments")

    async def complete(self, job: Job) -> Job:
        """Give a job back its whole request, as the caller sent it.

        Raises:
            GoneError: A part of it is lost.
        """
        if REFERENCE not in job.request:
            return job
        return replace(job, request=job.request | await self._read(job.id, job.request[REFERENCE], "request"))

    async def _read(self, job_id: str, name: Any, part: Part) -> dict[str, Any]:
        match = _NAME.fullmatch(name) if isinstance(name, str) else None
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
        read = await asyncio.to_thread(_read_content, content, match[2], part)
        if read is None:
            raise _lost(job_id)
        return read

    async def discard(self, job: Job | None) -> None:
        """Delete what a job that has gone had in the blob store; where that fails, the housekeeping does it later."""
        name = job.request.get(REFERENCE) if job else None
        match = _NAME.fullmatch(name) if isinstance(name, str) else None
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


def _write_payload(function: JobFunction, arguments: dict[str, Any]) -> str:
    return json.dumps([function, None, [], arguments])


def _write_content(arguments: dict[str, Any], unshown: dict[str, Any]) -> tuple[bytes, str]:
    """Write a line for the worker and one for who reads the request: neither needs to parse the other's."""
    content = f"{json.dumps(arguments)}\n{json.dumps(unshown)}".encode()
    return content, hashlib.sha256(content).hexdigest()


def _read_content(content: bytes, digest: str, part: Part) -> dict[str, Any] | None:
    """Read a part of what was written; None when the content is another."""
    if hashlib.sha256(content).hexdigest() != digest:
        return None
    arguments, _, unshown = content.partition(b"\n")
    return dict(json.loads(arguments if part == "arguments" else unshown))


def _lost(job_id: str) -> GoneError:
    return GoneError(f"What '{job_id}' was asked with is no longer in the blob store: ask again.", code="request_lost")
