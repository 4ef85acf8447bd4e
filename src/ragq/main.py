"""`python -m ragq.main`: the API alone, as the tutorial starts it."""

from __future__ import annotations

import socket
import sys

import uvicorn

from ragq.environment import join_services
from ragq.errors import RagqError
from ragq.logs import configure_logging
from ragq.server import create_app
from ragq.settings import Settings, check_exposure, read_settings


def serve(settings: Settings, *, fd: int | None = None) -> None:
    """Serve the API until told to stop.

    Args:
        fd: A listening socket to use instead of opening one.

    Raises:
        ConfigurationError: The address is too open.
    """
    check_exposure(settings)
    assert settings.valkey_url
    assert settings.database_url
    app = create_app(
        settings,
        valkey_url=settings.valkey_url.get_secret_value(),
        database_url=settings.database_url.get_secret_value(),
    )
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=64 << 10,
    )
    server = uvicorn.Server(config)
    server.run(sockets=None if fd is None else [socket.socket(fileno=fd)])
    if not server.started:
        sys.exit(1)  # uvicorn has logged why


def main() -> None:
    """Serve; a wrong setting ends with its message and code 1."""
    try:
        settings = read_settings()
        configure_logging(settings)
        serve(join_services(settings))
    except RagqError as error:
        sys.exit(f"ragq: {error}")


if __name__ == "__main__":
    main()
