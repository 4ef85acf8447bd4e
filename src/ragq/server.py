"""The HTTP application: routes, limits, and the handlers that turn errors into OpenAI's error body."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragq import __version__
from ragq.admin import audit_log as admin_audit_log
from ragq.admin import export as admin_export
from ragq.admin import keys as admin_keys
from ragq.admin import limits as admin_limits
from ragq.admin import sessions as admin_sessions
from ragq.admin import shares as admin_shares
from ragq.admin import sign_in as admin_sign_in
from ragq.admin import tenants as admin_tenants
from ragq.admin import usage as admin_usage
from ragq.batches.runner import run_batches_forever
from ragq.client.rq_client import JobQueue
from ragq.console import job_actions as console_job_actions
from ragq.console import jobs as console_jobs
from ragq.console import poison as console_poison
from ragq.console import queues as console_queues
from ragq.errors import (
    ConfigurationError,
    InvalidRequestError,
    NotFoundError,
    RagqError,
    UnavailableError,
)
from ragq.feedback import routes as feedback
from ragq.http.access import CORS, Access
from ragq.http.access_tokens import AccessTokens
from ragq.http.callers import Callers
from ragq.http.error_body import error_response
from ragq.http.keys import KeyCheck
from ragq.http.openapi import Application
from ragq.http.sign_in import SignIn
from ragq.http.traces import Traced
from ragq.mcp import route as mcp
from ragq.metrics import REQUESTS
from ragq.models import new_id
from ragq.queues.upkeep.housekeeping import restart_on_error, start_housekeeping
from ragq.routes import (
    batches,
    chat,
    chat_completions,
    completions,
    conversations,
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
    uploads,
    vector_stores,
    webhooks,
)
from ragq.routes.context import ApiContext
from ragq.routes.streams import Streams
from ragq.schemas.objects import explain_faults
from ragq.settings import Settings, split_list
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database
from ragq.tasks import end_tasks, freeze_heap
from ragq.tracing import start_tracing
from ragq.websocket import route as websocket

log = structlog.get_logger(__name__)

STARTS = ("http.response.start", "websocket.http.response.start", "websocket.accept")

# Matched in this order for each request.
PARTS = (
    *(chat, responses, feedback, conversations, chat_completions, completions, embeddings, models, batches, webhooks),
    *(files, uploads, vector_stores, store_search, store_files, file_batches),
    *(
        admin_keys,
        admin_tenants,
        admin_limits,
        admin_usage,
        admin_sessions,
        admin_sign_in,
        admin_audit_log,
        admin_export,
    ),
    *(console_jobs, console_job_actions, console_queues, console_poison),
    *(admin_shares, mcp, websocket, page, health, metrics),
)


def create_app(settings: Settings, *, valkey_url: str, database_url: str) -> FastAPI:
    """Build the application; it connects at startup."""
    callers = Callers()
    keys = KeyCheck(settings.api_key.get_secret_value() if settings.api_key else None, callers)
    sign_in = SignIn(settings) if settings.oidc_issuer else None

    app = Application(
        title="ragq",
        version=__version__,
        lifespan=partial(_connected, settings, keys, sign_in, callers, valkey_url, database_url),
        docs_url=None,  # FastAPI's pages load scripts from other hosts
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # it would send questions and bodies to others
    )
    for part in PARTS:
        app.add(part.router)
    app.add_exception_handler(RagqError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_middleware(Access, settings=settings, keys=keys)
    if origins := split_list(settings.cors_origins):
        app.add_middleware(CORSMiddleware, allow_origins=origins, **CORS)
    app.add_middleware(_RequestMiddleware)
    if start_tracing("api"):
        app.add_middleware(Traced)  # the last added is the outermost
    return app


@contextlib.asynccontextmanager
async def _connected(
    settings: Settings,
    keys: KeyCheck,
    sign_in: SignIn | None,
    callers: Callers,
    valkey_url: str,
    database_url: str,
    app: FastAPI,
) -> AsyncIterator[None]:
    """Open what an API process needs, and run it until the process ends."""
    blobs, database = BlobStore(settings), await Database.open(settings, database_url)
    queue = JobQueue(settings, valkey_url)
    context = ApiContext(
        settings=settings,
        queue=queue,
        database=database,
        blobs=blobs,
        streams=Streams(queue),
        keys=keys,
        sign_in=sign_in,
    )
    app.state.context = context
    callers.store, callers.sessions = context.api_keys, context.sessions
    if sign_in and settings.oidc_audience:
        callers.tokens = AccessTokens(sign_in, settings.oidc_audience, context.tenants)
    async with _running(context):
        yield


@contextlib.asynccontextmanager
async def _running(context: ApiContext) -> AsyncIterator[None]:
    """Run an API process's background tasks, and close its connections at the end."""
    tally = context.keys.tally
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(context.database.close)
        stack.push_async_callback(context.queue.close)
        stack.push_async_callback(context.parser.close)
        if context.sign_in:
            stack.push_async_callback(context.sign_in.close)
        stack.push_async_callback(tally.write_rest, context.audit_log)
        tasks = [await _prepare(context), *start_housekeeping(context)]
        parts = {
            "batches": partial(run_batches_forever, context),
            "audit": partial(tally.write_forever, context.audit_log),
        }
        tasks += [asyncio.create_task(restart_on_error(part, name), name=name) for name, part in parts.items()]
        stack.push_async_callback(end_tasks, tasks)
        freeze_heap()
        yield


async def _prepare(context: ApiContext) -> asyncio.Task[None]:
    """Check Valkey and migrate now or, while a server is down, in the background.

    Raises:
        ConfigurationError: A server's settings are unsafe or do not fit, so the process must not start.
    """

    async def prepare() -> None:
        await context.queue.check_server()
        await context.database.migrate(embedding_model=context.settings.embedding_name)
        context.not_ready = None

    async def retry_until_available() -> None:
        while context.not_ready:
            try:
                await prepare()
            except RagqError as error:
                context.not_ready = str(error)
                log.warning("not_ready", error=str(error))
                await asyncio.sleep(1)

    with contextlib.suppress(UnavailableError):
        await prepare()
    return asyncio.create_task(retry_until_available())


class _RequestMiddleware:
    """Middleware for every request: an id, HEAD for every GET, and an answer to any exception."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request_id, started, method = new_id("req_"), False, scope.get("method", "WEBSOCKET")
        if method == "HEAD":
            scope = {**scope, "method": "GET"}

        async def send_with_id(message: Message) -> None:
            nonlocal started
            is_start = message["type"] in STARTS
            if is_start:
                started = True
                route = getattr(scope.get("route"), "path", "unknown")
                REQUESTS.labels(method, route, message.get("status", HTTPStatus.SWITCHING_PROTOCOLS.value)).inc()
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            if is_start or method != "HEAD":
                await send(message)
            if is_start and method == "HEAD":
                await send(
                    {"type": "http.response.body"}
                )  # end of the answer: later parts are not sent, and a stream stops

        try:
            await self._app(scope, receive, send_with_id)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  (the outermost handler of a request)
            answer = _explain(error, request_id, scope["path"])
            if not started:
                await error_response(answer)(scope, receive, send_with_id)


def _explain(error: BaseException, request_id: str, path: str) -> RagqError:
    """What a client is told of an error that no other handler knows, or of the end of this process."""
    if isinstance(error, asyncio.CancelledError):
        log.warning("request_cut_off", request_id=request_id, path=path)
        return UnavailableError("The server is stopping. Try again.", retry_after_seconds=2)
    log.error("request_failed", request_id=request_id, path=path, exc_info=error)
    return RagqError(f"Internal error. See {request_id} in the server's log.")


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RagqError)
    request.app.state.context.keys.tally.count_refusal(request, error)
    if error.detail:
        log.warning("request_refused", path=request.url.path, code=error.code, error=str(error))
    if isinstance(error, ConfigurationError):
        log.error("misconfigured", error=str(error))
    return error_response(error)


async def _answer_validation_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    source = error.errors()[0]["loc"][0]  # body, query, path or header
    faults = [fault for fault in error.errors() if fault["loc"][0] == source]
    return error_response(explain_faults(faults, error.body if source == "body" else None, skip=1))


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    cause = error.__cause__ or error.__context__
    if isinstance(cause, RagqError):  # FastAPI treats any exception from reading the body as malformed input
        return error_response(cause)
    if isinstance(error.__context__, MultiPartException):
        is_second_file = error.__context__.message.startswith("Too many files")
        message = "Send one file: a form has one part named 'file'." if is_second_file else str(error.detail)
        return error_response(
            InvalidRequestError(message, code="invalid_form", param="file" if is_second_file else None), closes=True
        )
    if error.status_code == NotFoundError.status:
        return error_response(
            NotFoundError(f"Unknown address: {request.method} {request.url.path}.", code="unknown_url")
        )
    return error_response(InvalidRequestError(str(error.detail), code="invalid_request"), error.status_code)
