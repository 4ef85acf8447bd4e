"""`python -m ragq.main`: the API alone, as the tutorial starts it."""

from __future__ import annotations

import signal
import socket
import sys
from functools import partial

import uvicorn

from ragq.descriptors import raise_descriptor_limit
from ragq.environment import join_services
from ragq.errors import RagqError
from ragq.http.connections import GRACE_SECONDS, Connection, Connections
from ragq.http.exposure import check_exposure
from ragq.http.websockets import WEBSOCKET_LIMITS, WebSocketConnection
from ragq.logs import configure_logging
from ragq.server import create_app
from ragq.settings import Settings, read_settings

MAX_CONNECTIONS = 4096  # of one process, if not set
BACKLOG = 2048  # connections waiting to be accepted


def serve(settings: Settings, *, fd: int | None = None) -> None:
    """Serve the API until a signal; Ctrl-C exits with code 130, as shells expect.

    Args:
        fd: Descriptor of a listening socket to use instead of opening one.

    Raises:
        ConfigurationError: The address or the key is unsafe (`check_exposure`).
    """
    check_exposure(settings)
    assert settings.valkey_url
    assert settings.database_url
    app = create_app(
        settings,
        valkey_url=settings.valkey_url.get_secret_value(),
        database_url=settings.database_url.get_secret_value(),
    )
    descriptors = raise_descriptor_limit()  # half for clients, a quarter for those being accepted, a quarter for us
    connections = Connections(min(settings.max_connections or MAX_CONNECTIONS, descriptors // 2))
    config = uvicorn.Config(
        app,
        http=partial(Connection, connections),  # type: ignore[arg-type]  # it is called with keywords alone
        ws=partial(WebSocketConnection, connections),  # type: ignore[arg-type]
        **WEBSOCKET_LIMITS,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        proxy_headers=False,  # with them, a client could claim any address and guess keys from each
        timeout_keep_alive=60,  # `Connections` closes silent ones sooner
        timeout_graceful_shutdown=GRACE_SECONDS,
        backlog=min(BACKLOG, descriptors // 4),
    )
    server = uvicorn.Server(config)
    try:
        server.run(sockets=None if fd is None else [socket.socket(fileno=fd)])
    except KeyboardInterrupt:  # raised again by uvicorn after it has shut down
        sys.exit(128 + signal.SIGINT)
    if not server.started:
        sys.exit(1)  # uvicorn has logged the reason


def main() -> None:
    """Serve the API; an error prints its message, and its exit code is that of the commands."""
    try:
        settings = read_settings()
        configure_logging(settings)
        serve(join_services(settings))
    except RagqError as error:
        sys.stderr.write(f"ragq: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
