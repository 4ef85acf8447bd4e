"""Who may send what: checked for every request before a byte of its body is read.

In this order: the host by which the API is called, the API key or the session, the website that sends a change, and
the size of the body.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragq.errors import AuthenticationError, ForbiddenError, OverloadedError, RagqError, TooLargeError
from ragq.models import DEFAULT_TENANT
from ragq.routes.error_body import error_response
from ragq.routes.keys import KeyCheck
from ragq.routes.session import COOKIE, is_open
from ragq.settings import LOCALHOST, Settings, is_loopback, split_list

HEALTH = ("/healthz", "/readyz")  # answered under any host name: probes call a container by its address
KEYLESS = (*HEALTH, "/", "/session", "/openapi.json")
PAGE_PARTS = "/web/"  # keyless, too
FILES = "/v1/files"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
MULTIPART_OVERHEAD_BYTES = 1 << 20  # what a form may have beside the file
MAX_JSON_BYTES = 4 << 20
MAX_KEYLESS_BYTES = 64 << 10
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:@/\[\]]+)(?::\d+)?", re.IGNORECASE)

CORS: dict[str, Any] = {
    "allow_methods": ["GET", "HEAD", "POST", "DELETE"],
    "allow_headers": ["*"],  # Authorization and what SDKs add: an origin that is listed is trusted
    "allow_private_network": True,
    "expose_headers": ["x-request-id", "retry-after", "retry-after-ms", "openai-poll-after-ms", "content-disposition"],
}


def is_keyless(path: str) -> bool:
    """Whether a route answers without the key."""
    return path in KEYLESS or path.startswith(PAGE_PARTS)


class Access:
    """ASGI middleware that refuses, and that tells routes in `request.state` whose data they may touch.

    `state.tenant` is set when the request may touch data. `state.is_trusted` tells routes without a key whether it could.
    """

    def __init__(self, app: ASGIApp, settings: Settings, keys: KeyCheck | None) -> None:
        self._app = app
        self._keys = keys
        self._max_file_bytes = settings.max_file_bytes
        self._origins = split_list(settings.cors_origins)
        hosts = [host.lower() for host in split_list(settings.allowed_hosts)]
        self._takes_any_host = "*" in hosts or not (hosts or is_loopback(settings.host))
        self._hosts = {LOCALHOST, settings.host.lower(), *hosts}
        self._domains = tuple(host[1:] for host in hosts if host.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        limit = self._limit(scope["path"])
        try:
            self._admit(request)
            _check_length(request, limit)
        except RagqError as error:
            await error_response(error, closes=_has_body(request))(scope, receive, send)
        else:
            await self._app(scope, _limited(receive, limit, scope["path"]), send)

    def _admit(self, request: Request) -> None:
        """Find out who asks.

        Raises:
            RagqError: The request is refused.
        """
        path, state = request.scope["path"], request.state
        is_our_host = self._takes_any_host or all(map(self._is_our_host, request.headers.getlist("host") or [""]))
        if not is_our_host and path not in HEALTH:
            raise ForbiddenError(
                f"This service does not answer to the host '{request.headers.get('host', '')[:80]}'. If it should, name it "
                "in RAGQ_ALLOWED_HOSTS.",
                code="unknown_host",
            )
        state.is_trusted = has_key = False
        if not is_keyless(path):
            has_key = self._check_caller(request)
            state.tenant = DEFAULT_TENANT
        elif path in HEALTH and is_our_host:
            with contextlib.suppress(AuthenticationError, OverloadedError):
                self._check_caller(request)
                state.is_trusted = True
        if request.method not in SAFE_METHODS and not has_key:
            self._check_origin(request)

    def _check_caller(self, request: Request) -> bool:
        """Accept the key, or the session that stands for it; tell whether it was the key.

        Raises:
            AuthenticationError: It is neither.
            OverloadedError: Too many wrong keys came from there.
        """
        if self._keys is None:
            return False
        given = request.headers.get("api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if given or COOKIE not in request.cookies:
            self._keys.check(given.strip(), request.client.host if request.client else "")
            return True
        if not is_open(request, self._keys.key):
            raise AuthenticationError("The session has ended: send the API key to POST /session again.")
        return False

    def _check_origin(self, request: Request) -> None:
        """Refuse a change that a page of another website sends; one that bears the key cannot be forged.

        Raises:
            ForbiddenError: Another website stands behind it, or the session's cookie without our own page.
        """
        if self._keys is not None and not is_keyless(request.scope["path"]):
            if not _is_from_our_page(request):
                raise ForbiddenError(
                    "The session's cookie changes things from ragq's own page only: send the API key instead.",
                    code="cross_site_request",
                )
        elif request.headers.get("origin") not in self._origins and _is_from_another_site(request):
            raise ForbiddenError(
                f"A page of another website ({request.headers.get('origin', 'unknown')[:80]}) sent this. If it may, name "
                "its origin in RAGQ_CORS_ORIGINS.",
                code="cross_site_request",
            )

    def _is_our_host(self, header: str) -> bool:
        match = HOST.fullmatch(header)
        name = match[1].strip("[]").rstrip(".").lower() if match else ""
        return name in self._hosts or is_loopback(name) or (bool(self._domains) and name.endswith(self._domains))

    def _limit(self, path: str) -> int:
        if path == FILES:
            return self._max_file_bytes + MULTIPART_OVERHEAD_BYTES
        return MAX_KEYLESS_BYTES if is_keyless(path) else MAX_JSON_BYTES


def _is_from_our_page(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    return site == "same-origin" if site is not None else _is_same_origin(request)


def _is_from_another_site(request: Request) -> bool:
    """Judge by what browsers add: programs send neither header, and a person's own address bar says `none`."""
    site = request.headers.get("sec-fetch-site")  # browsers leave it out on plain HTTP beyond loopback
    if site in (None, "none"):
        return "origin" in request.headers and not _is_same_origin(request)
    return site != "same-origin"


def _is_same_origin(request: Request) -> bool:
    return request.headers.get("origin", "").partition("://")[2] == request.headers.get("host")


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _check_length(request: Request, limit: int) -> None:
    declared = request.headers.get("content-length", "0").lstrip("0") or "0"
    if len(declared) > len(str(limit)) or (declared.isdecimal() and int(declared) > limit):
        raise _too_large(limit, request.scope["path"])


def _limited(receive: Receive, limit: int, path: str) -> Receive:
    """Stop reading when more than `limit` bytes arrive: a body that comes in chunks does not say its length."""
    seen = 0

    async def receive_limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise _too_large(limit, path)
        return message

    return receive_limited


def _too_large(limit: int, path: str) -> TooLargeError:
    param = "file" if path == FILES else None
    return TooLargeError(f"The request's body is over the limit of {limit} bytes.", param=param)
