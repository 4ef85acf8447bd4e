"""The command line's client of ragq's HTTP API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import aiohttp

from ragq.errors import NotFoundError, PermanentError, RagqError, TransientError, UnavailableError
from ragq.settings import read_settings

POLL_SECONDS = 0.2
POLLED_AT_ONCE = 8  # files; more are polled more slowly
STREAM_BYTES = 1 << 20
NO_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=60)
PARSE_SHARE = 0.2  # share of a document's progress; the rest is embedding and storing


class ApiClient:
    """Asks questions and ingests documents over HTTP; use it as an async context manager."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._followed = 0
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=600, connect=10)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Send one request and return the JSON of its response.

        Raises:
            UnavailableError: No server listens there.
            TransientError: The server asks to try again later.
            PermanentError: The server refuses; the message is the server's.
        """
        try:
            async with self._session.request(method, self._url + path, **options) as answer:
                body = _read(await answer.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnavailableError(f"No ragq answers at {self._url} ({error}). Start one with `ragq up`.") from error
        if answer.status >= 400:
            raise _error_of(answer.status, body)
        return body

    async def stream(self, path: str, **options: Any) -> AsyncIterator[bytes]:
        """Get the pieces of a response's body.

        Raises:
            UnavailableError: No server listens there, or the connection broke before the end.
            TransientError: The server asks to try again later.
            NotFoundError: There is no such object.
            PermanentError: The server refuses; the message is the server's.
        """
        try:
            async with self._session.get(self._url + path, timeout=NO_TIMEOUT, **options) as answer:
                if answer.status >= 400:
                    raise _error_of(answer.status, _read(await answer.read()))
                async for piece in answer.content.iter_chunked(STREAM_BYTES):
                    yield piece
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnavailableError(f"The connection to {self._url} broke ({error}). Run it again to go on.") from error

    async def ask(self, question: str | Sequence[dict[str, str]], **fields: Any) -> dict[str, Any]:
        """Queue a question and poll until it has ended; returns the response object.

        Args:
            question: A text, or the messages of a conversation.
            fields: Of the request, besides.
        """
        response = await self.call("POST", "/v1/responses", json={"input": question, "background": True} | fields)
        while response["status"] in ("queued", "in_progress"):
            await asyncio.sleep(POLL_SECONDS)
            response = await self.call("GET", f"/v1/responses/{response['id']}")
        return response

    async def ingest(self, path: Path, name: str, *, on_progress: Callable[[float], None]) -> dict[str, Any]:
        """Put a file into the default store and follow it; see `put` and `follow`."""
        with path.open("rb") as file:
            state = await self.put(file, name, {"source": name[:512]})
        return await self.follow(state, on_progress=on_progress)

    async def put(
        self, file: BinaryIO, name: str, attributes: dict[str, str | int], readers: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Upload a file into the default store, in place of those of its name; returns its state there.

        Args:
            readers: Groups that may read it; without any, those of what it replaces.
        """
        uploaded = await self.upload(file, name)
        body = {"file_id": uploaded["id"], "replace_same_name": True, "attributes": attributes}
        if readers:
            body["readers"] = list(readers)
        return await self.call("POST", "/v1/vector_stores/default/files", json=body)

    async def upload(self, file: BinaryIO | bytes, name: str, *, purpose: str = "assistants") -> dict[str, Any]:
        """Upload a file; returns the file object."""
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("purpose", purpose)
        form.add_field("file", file, filename=name)
        return await self.call("POST", "/v1/files", data=form)

    async def follow(self, state: dict[str, Any], *, on_progress: Callable[[float], None]) -> dict[str, Any]:
        """Poll a file in the default store until it is searchable or has failed.

        Args:
            on_progress: Called with the share done, 0…1, which never decreases.
        """
        share, self._followed = 0.0, self._followed + 1
        try:
            while state["status"] == "in_progress":
                await asyncio.sleep(POLL_SECONDS * max(1, self._followed / POLLED_AT_ONCE))
                state = await self.call("GET", f"/v1/vector_stores/default/files/{state['id']}")
                share = max(share, _share_done(state.get("progress")))
                on_progress(share)
        finally:
            self._followed -= 1
        on_progress(1.0)
        return state


def open_client(url: str | None = None) -> ApiClient:
    """Make a client with the settings' key, and their address if none is given."""
    settings = read_settings()
    return ApiClient(url or settings.url, settings.api_key.get_secret_value() if settings.api_key else None)


def _error_of(status: int, body: dict[str, Any]) -> RagqError:
    fault = body.get("error") or {}
    kind: type[RagqError] = TransientError if status in (429, 503) else PermanentError
    faults = "; ".join(f"{name}: {text}" for name, text in body.items() if name not in ("error", "status"))
    return (NotFoundError if status == 404 else kind)(
        fault.get("message") or faults or f"HTTP status {status}", code=fault.get("code")
    )


def _share_done(progress: dict[str, Any] | None) -> float:
    if not progress:
        return 0.0
    done = float(progress["done"] / max(1, progress["total"]))
    return PARSE_SHARE * done if progress["stage"] == "parse" else PARSE_SHARE + (1 - PARSE_SHARE) * done


def _read(content: bytes) -> dict[str, Any]:
    """Parse a response; empty if it is not a JSON object, such as a proxy's page."""
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
