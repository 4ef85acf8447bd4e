"""Access checks for every request, before a byte of its body is read.

In this order: the host name of the request, the API key or the session, the website that sends a change, and the size of
the body.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

from starlette.requests import HTTPConnection, cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragq.accounts.payer import paid_by
from ragq.accounts.roles import Role
from ragq.errors import ForbiddenError, RagqError, TooLargeError
from ragq.http.allowances import ALLOWANCE_HEADERS, add_allowances
from ragq.http.callers import Caller
from ragq.http.error_body import error_response
from ragq.http.keys import KeyCheck
from ragq.http.session import COOKIE
from ragq.settings import LOCALHOST, Settings, is_loopback, split_list

HEALTH = ("/healthz", "/readyz")  # answered for any host name, because probes use a container's address
SESSION_ROUTES = ("/session", "/session/sign-in", "/session/callback", "/session/sign-out")
PAGES = ("/", "/console")
KEYLESS = (*HEALTH, *SESSION_ROUTES, *PAGES, "/openapi.json")
PAGE_PARTS = "/web/"  # also without the key
FILES = "/v1/files"
KEY_PROTOCOL = (
    "openai-insecure-api-key."  # begins the WebSocket subprotocol in which OpenAI's browser clients send a key
)
IDLE = "ragq.idle"  # extension of a WebSocket's scope: tells the server whether the application waits for a message
PART = re.compile(r"/v1/uploads/[^/]+/parts")  # of a file
MAX_PART_BYTES = 64 << 20
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
MULTIPART_OVERHEAD_BYTES = 1 << 20  # allowance for a form's parts beside the file
MAX_JSON_BYTES = 4 << 20
MAX_KEYLESS_BYTES = 64 << 10
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:@/\[\]]+)(?::\d+)?", re.IGNORECASE)

CORS: dict[str, Any] = {
    "allow_methods": ["GET", "HEAD", "POST", "DELETE"],
    "allow_headers": ["*"],  # Authorization and the headers of SDKs; a listed origin is trusted
    "allow_private_network": True,
    "expose_headers": [
        *("x-request-id", "retry-after", "retry-after-ms", "openai-poll-after-ms", "content-disposition"),
        *ALLOWANCE_HEADERS,
    ],
}


def is_keyless(path: str) -> bool:
    """Whether a route needs no key."""
    return path in KEYLESS or path.startswith(PAGE_PARTS)


class Access:
    """ASGI middleware that refuses requests, and sets the caller for routes.

    `request.state.caller` is set for routes that need a key. `request.state.is_trusted` shows the others whether the caller
    is the operator.
    """

    def __init__(self, app: ASGIApp, settings: Settings, keys: KeyCheck) -> None:
        self._app = app
        self._keys = keys
        self._max_file_bytes = settings.max_file_bytes
        self._origins = split_list(settings.cors_origins)
        hosts = [host.lower() for host in split_list(settings.allowed_hosts)]
        self._takes_any_host = "*" in hosts or not (hosts or is_loopback(settings.host))
        self._hosts = {LOCALHOST, settings.host.lower(), *hosts}
        self._domains = tuple(host[1:] for host in hosts if host.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = _read_headers(scope)
        if scope["type"] == "websocket":
            answers = await self._admit_websocket(scope, headers)
            await answers(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        try:
            await self._admit(scope, headers)
            _check_length(headers, limit, scope["path"])
        except RagqError as error:
            await error_response(error, closes=_has_body(headers))(scope, receive, send)
        else:
            caller: Caller | None = scope["state"].get("caller")
            payer = caller.new_payer() if caller else None
            if payer and payer.is_limited:
                send = add_allowances(send, payer)
            with paid_by(payer):
                await self._app(scope, _limited(receive, limit, scope["path"]), send)

    async def _admit_websocket(self, scope: Scope, headers: dict[str, str]) -> ASGIApp:
        """Choose who answers a handshake: the application, or a refusal. `WebSocketConnection` limits the messages."""
        try:
            await self._admit(scope, headers)
        except RagqError as error:
            return error_response(error)
        return self._app

    async def _admit(self, scope: Scope, headers: dict[str, str]) -> None:
        """Authenticate the request.

        Raises:
            RagqError: The request is refused.
        """
        path, state = scope["path"], scope["state"]
        is_our_host = self._takes_any_host or self._is_our_host(headers.get("host", ""))
        if not is_our_host and path not in HEALTH:
            raise ForbiddenError(
                f"This service does not answer to the host '{headers.get('host', '')[:80]}'. If it should, add it to "
                "RAGQ_ALLOWED_HOSTS.",
                code="unknown_host",
            )
        state["is_trusted"] = has_key = False
        if not is_keyless(path):
            state["caller"], has_key = await self._find_caller(scope, headers)
        elif path in HEALTH and is_our_host:
            with contextlib.suppress(RagqError):
                caller, _ = await self._find_caller(scope, headers)
                state["is_trusted"] = caller.role is Role.OPERATOR
        if scope.get("method") not in SAFE_METHODS and not has_key:  # a WebSocket has no method, and may change data
            try:
                self._check_origin(path, headers)
            except ForbiddenError as error:
                self._keys.tally.count_refusal(HTTPConnection(scope), error)
                raise

    async def _find_caller(self, scope: Scope, headers: dict[str, str]) -> tuple[Caller, bool]:
        """Find who sends a request, by the key or a session; also whether it was the key.

        Raises:
            RagqError: Neither is valid, or that cannot be told now.
        """
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = headers.get("api-key") or (bearer if scheme.lower() == "bearer" else _key_in_subprotocols(scope))
        session = cookie_parser(headers.get("cookie", "")).get(COOKIE)
        address = scope["client"][0] if scope["client"] else ""
        if given or session is None:
            return await self._keys.check(given, address), self._keys.is_required
        try:
            return await self._keys.check_session(session), False
        except ForbiddenError as error:
            self._keys.tally.count_wrong_key(address, error.code)
            raise

    def _check_origin(self, path: str, headers: dict[str, str]) -> None:
        """Refuse a change sent by a page of another website; a request with the key cannot be forged.

        Raises:
            ForbiddenError: It comes from another website, or has the session's cookie and is not from our own page.
        """
        if self._keys.is_required and not is_keyless(path):
            if not _is_from_our_page(headers):
                raise ForbiddenError(
                    "With the session's cookie, only ragq's own page may change data: send the API key instead.",
                    code="cross_site_request",
                )
        elif headers.get("origin") not in self._origins and _is_from_another_site(headers):
            raise ForbiddenError(
                f"A page of another website ({headers.get('origin', 'unknown')[:80]}) sent this. If it may, add its "
                "origin to RAGQ_CORS_ORIGINS.",
                code="cross_site_request",
            )

    def _is_our_host(self, header: str) -> bool:
        match = HOST.fullmatch(header)
        name = match[1].strip("[]").rstrip(".").lower() if match else ""
        return name in self._hosts or is_loopback(name) or (bool(self._domains) and name.endswith(self._domains))

    def _limit(self, path: str) -> int:
        if path == FILES:
            return self._max_file_bytes + MULTIPART_OVERHEAD_BYTES
        if PART.fullmatch(path):
            return min(self._max_file_bytes, MAX_PART_BYTES) + MULTIPART_OVERHEAD_BYTES
        return MAX_KEYLESS_BYTES if is_keyless(path) else MAX_JSON_BYTES


def _key_in_subprotocols(scope: Scope) -> str:
    """The key as a browser sends it, which cannot set headers of a WebSocket's handshake."""
    keys = [name.removeprefix(KEY_PROTOCOL) for name in scope.get("subprotocols", ()) if name.startswith(KEY_PROTOCOL)]
    return keys[0] if keys else ""


def _is_from_our_page(headers: dict[str, str]) -> bool:
    site = headers.get("sec-fetch-site")
    return site == "same-origin" if site is not None else _is_same_origin(headers)


def _is_from_another_site(headers: dict[str, str]) -> bool:
    """Decide by browsers' headers: other programs send neither, and for a typed address Sec-Fetch-Site is `none`."""
    site = headers.get("sec-fetch-site")  # browsers omit it on plain HTTP beyond loopback
    if site in (None, "none"):
        return "origin" in headers and not _is_same_origin(headers)
    return site != "same-origin"


def _is_same_origin(headers: dict[str, str]) -> bool:
    return headers.get("origin", "").partition("://")[2] == headers.get("host")


def _has_body(headers: dict[str, str]) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _check_length(headers: dict[str, str], limit: int, path: str) -> None:
    declared = headers.get("content-length", "0").lstrip("0") or "0"
    if len(declared) > len(str(limit)) or (declared.isdecimal() and int(declared) > limit):
        raise _too_large(limit, path)


def _read_headers(scope: Scope) -> dict[str, str]:
    """Read the headers once for all checks; values of a repeated header are joined, so that neither passes alone."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _limited(receive: Receive, limit: int, path: str) -> Receive:
    """Stop reading after `limit` bytes, because a chunked body does not state its length."""
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
    return TooLargeError(f"The request's body exceeds the limit of {limit} bytes.", param=param)
