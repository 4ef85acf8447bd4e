"""The HTTP application: routes, limits, and the one place that turns errors into OpenAI's error body."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from functools import partial

import structlog
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragq import __version__
from ragq.client.archive_client import Archive
from ragq.client.blob_client import BlobStore
from ragq.client.database import Database
from ragq.client.file_client import Files
from ragq.client.rq_client import JobQueue
from ragq.client.store_client import Stores
from ragq.client.store_file_client import StoreFiles
from ragq.errors import (
    ConfigurationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    RagqError,
    TooLargeError,
    UnavailableError,
)
from ragq.metrics import REQUESTS
from ragq.models import new_id
from ragq.queues.housekeeping import guarded, keep_house
from ragq.routes import (
    batches,
    chat,
    chat_completions,
    embeddings,
    file_batches,
    files,
    health,
    metrics,
    models,
    page,
    responses,
    store_files,
    store_search,
    vector_stores,
    webhook_endpoints,
)
from ragq.routes.batch_runner import run_batches_forever
from ragq.routes.context import Context, explain_fault, refuse_unknown_parameters
from ragq.routes.input import refuse_bad_input
from ragq.routes.openapi import Application
from ragq.routes.streams import Streams
from ragq.settings import Settings
from ragq.tasks import end_tasks, spare_long_lived

log = structlog.get_logger(__name__)

MULTIPART_OVERHEAD_BYTES = 1 << 20  # what a form may have beside the file
MAX_JSON_BYTES = 4 << 20


def create_app(settings: Settings, *, valkey_url: str, database_url: str) -> FastAPI:
    """Build the application; it connects when it starts."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = await Database.open(settings, database_url)
        queue = JobQueue(settings, valkey_url)
        context = Context(
            settings=settings,
            queue=queue,
            database=database,
            files=Files(database),
            stores=Stores(database),
            store_files=StoreFiles(database),
            blobs=BlobStore(settings),
            archive=Archive(database),
            streams=Streams(queue),
        )
        app.state.context = context
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(database.close)
            stack.push_async_callback(context.queue.close)
            tasks = [await _prepare(context), *keep_house(settings, context.queue, database)]
            tasks.append(asyncio.create_task(guarded(partial(run_batches_forever, context), "batches"), name="batches"))
            stack.push_async_callback(end_tasks, tasks)
            spare_long_lived()
            yield

    app = Application(
        title="ragq",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from other hosts
        redoc_url=None,
        dependencies=[Depends(refuse_bad_input), Depends(refuse_unknown_parameters)],
    )
    stores = (files, vector_stores, store_search, store_files, file_batches)
    answers = (chat, responses, chat_completions, embeddings, models, batches, webhook_endpoints)
    parts = (*answers, *stores, page, health, metrics)  # looked through in this order for each request
    for part in parts:
        app.include_router(part.router)
    app.add_exception_handler(RagqError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_middleware(_Frame, max_file_bytes=settings.max_file_bytes)
    return app


async def _prepare(context: Context) -> asyncio.Task[None]:
    """Check Valkey and migrate now or, while they are away, in the background.

    Raises:
        ConfigurationError: Their settings are unsafe or do not fit: the process must not start.
    """

    async def prepare() -> None:
        await context.queue.check_server()
        await context.database.migrate(embedding_model=context.settings.embedding_name)
        context.not_ready = None

    async def insist() -> None:
        while context.not_ready:
            try:
                await prepare()
            except RagqError as error:
                context.not_ready = error.message
                log.warning("not_ready", error=error.message)
                await asyncio.sleep(1)

    with contextlib.suppress(UnavailableError):
        await prepare()
    return asyncio.create_task(insist())


class _Frame:
    """What surrounds every request: an id, limits on the body, and an answer whatever happens."""

    def __init__(self, app: ASGIApp, max_file_bytes: int) -> None:
        self._app = app
        self._max_file_bytes = max_file_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, started = new_id("req_"), False
        limit = MAX_JSON_BYTES
        if scope["path"] == "/v1/files":
            limit = self._max_file_bytes + MULTIPART_OVERHEAD_BYTES

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                route = getattr(scope.get("route"), "path", "unknown")
                REQUESTS.labels(scope["method"], route, message["status"]).inc()
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, _limited(scope, receive, limit), send_with_id)
        except TooLargeError as error:
            if not started:
                await _body(error)(scope, receive, send_with_id)
        except Exception:  # the outermost place of a request
            log.exception("request_failed", request_id=request_id, path=scope["path"])
            if not started:
                unexpected = RagqError(f"Something went wrong here. The server's log says what, under {request_id}.")
                await _body(unexpected)(scope, receive, send_with_id)


def _limited(scope: Scope, receive: Receive, limit: int) -> Receive:
    """Refuse a body of more than `limit` bytes, by what it says of itself or by what arrives."""
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    seen = 0

    async def receive_limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit or (declared.isdigit() and int(declared) > limit):
            raise TooLargeError(f"The request's body is over the limit of {limit} bytes.", param="file")
        return message

    return receive_limited


def _body(error: RagqError, status: int | None = None) -> JSONResponse:
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
        headers["retry-after-ms"] = str(round(error.retry_after_seconds * 1000))
    if isinstance(error, ConflictError):
        headers["x-should-retry"] = "false"
    if isinstance(error, TooLargeError):
        headers["Connection"] = "close"
    content = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return JSONResponse({"error": content}, status or error.status, headers=headers)


async def _answer_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RagqError)
    if isinstance(error, ConfigurationError):
        log.error("misconfigured", error=error.message)
    return _body(error)


async def _answer_validation_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _body(explain_fault(error.errors()[0], skip=1))  # the first part says where: body, query, path, header


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, TooLargeError) or isinstance(error.__context__, TooLargeError):
        return _body(error.__cause__ or error.__context__)  # type: ignore[arg-type]
    if error.status_code == NotFoundError.status:
        return _body(NotFoundError(f"Unknown address: {request.method} {request.url.path}.", code="unknown_url"))
    return _body(InvalidRequestError(str(error.detail), code="invalid_request"), error.status_code)
