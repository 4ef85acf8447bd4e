"""`python -m ragq.main`: the API alone, as the tutorial starts it."""

from __future__ import annotations

import socket
import sys

import uvicorn
from pydantic import SecretStr

from ragq.embedded.services import read_services
from ragq.errors import ConfigurationError, RagqError
from ragq.logs import configure_logging
from ragq.server import create_app
from ragq.settings import Settings, read_settings

RQ_WORKER = [sys.executable, "-m", "rq.cli", "worker"]
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def check_exposure(settings: Settings) -> None:
    """Refuse to listen beyond this machine without a key.

    Raises:
        ConfigurationError: `RAGQ_HOST` is not a loopback address and `RAGQ_API_KEY` is not set.
    """
    if settings.host not in LOOPBACK and settings.api_key is None:
        raise ConfigurationError(
            f"Listening on {settings.host} would let anyone read the documents: set RAGQ_API_KEY, or listen on 127.0.0.1."
        )


def join_services(settings: Settings) -> Settings:
    """Fill in the addresses that are not configured with those of the `ragq up` that runs in the data folder.

    Raises:
        ConfigurationError: None runs there.
    """
    missing = [name for name in ("valkey_url", "database_url") if getattr(settings, name) is None]
    if not missing:
        return settings
    services = read_services(settings.data_dir)
    found = {name: getattr(services, name) for name in missing}
    if None in found.values():
        raise ConfigurationError("RAGQ_VALKEY_URL and RAGQ_DATABASE_URL: set those that `ragq up` was given, here too.")
    return settings.model_copy(update={name: SecretStr(url) for name, url in found.items()})


def worker_variables(settings: Settings) -> dict[str, str]:
    """What the environment of a bare `rq worker` or `rq info` must hold to work on our queues."""
    assert settings.valkey_url
    assert settings.database_url
    valkey_url = settings.valkey_url.get_secret_value()
    return {
        "RQ_REDIS_URL": valkey_url,
        "RQ_KEY_PREFIX": settings.key_prefix,
        "RQ_WORKER_CLASS": "ragq.queues.async_worker.AsyncWorker",
        "RQ_CONFIG": "ragq.queues",
        "RAGQ_KEY_PREFIX": settings.key_prefix,
        "RAGQ_VALKEY_URL": valkey_url,
        "RAGQ_DATABASE_URL": settings.database_url.get_secret_value(),
        "RAGQ_DATA_DIR": str(settings.data_dir.resolve()),
    }


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
        sys.exit(f"ragq: {error.message}")


if __name__ == "__main__":
    main()
