"""A span for each HTTP request, in the trace that its client began."""

from __future__ import annotations

from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragq import tracing

UNTRACED = ("/healthz", "/readyz", "/metrics")  # asked all the time, by machines


class Traced:
    """Middleware, present only while traces are on. A WebSocket has no span: each of its questions begins a trace."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(UNTRACED):
            await self._app(scope, receive, send)
            return
        method: str = scope["method"]
        attributes = {"http.request.method": method, "url.path": scope["path"], "url.scheme": scope["scheme"]}
        given = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with tracing.begin(method, attributes, kind="server", headers=given) as span:

            async def send_noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    span.set({"http.response.status_code": status})
                    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                        span.fail(str(status))
                    if route := getattr(scope.get("route"), "path", ""):
                        span.rename(f"{method} {route}")
                        span.set({"http.route": route})
                await send(message)

            await self._app(scope, receive, send_noting)
