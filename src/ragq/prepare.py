"""Check the servers and migrate, before anything uses them.

`ragq up` runs this as a process of its own, since it would keep the memory of the clients for as long as it is up.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import structlog
from pydantic import SecretStr

from ragq.client.rq_client import JobQueue
from ragq.embedded.processes import end_with_parent
from ragq.errors import RagqError, UnavailableError
from ragq.logs import configure_logging
from ragq.settings import Settings, read_settings
from ragq.storage.database import MIGRATIONS_PENDING, OTHER_MODEL, Database

log = structlog.get_logger(__name__)

PREPARE_SECONDS = 10.0  # time for configured servers to answer


def main() -> None:
    """Read the servers' URLs as a line of JSON from standard input, prepare them, and write the error, if any, as JSON."""
    settings = read_settings()
    configure_logging(settings)
    if not (line := sys.stdin.readline()):  # `ragq up` has ended
        return
    end_with_parent()
    urls = {name: SecretStr(url) for name, url in json.loads(line).items()}
    try:
        asyncio.run(prepare(settings.model_copy(update=urls)))
    except RagqError as error:
        json.dump({"is_temporary": isinstance(error, UnavailableError), "message": str(error)}, sys.stdout)


async def prepare(settings: Settings) -> None:
    """Check that Valkey cannot lose jobs, and migrate.

    Raises:
        UnavailableError: A server does not answer in time.
        ConfigurationError: A server's settings do not fit.
    """
    assert settings.valkey_url
    queue = JobQueue(settings, settings.valkey_url.get_secret_value())
    deadline = time.monotonic() + PREPARE_SECONDS
    try:
        while True:
            try:
                await queue.check_server()
                return await migrate(settings)
            except UnavailableError as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("waiting_for_service", error=str(error))
                await asyncio.sleep(1)
    finally:
        await queue.close()


async def migrate(settings: Settings) -> None:
    """Bring the database's schema up to date.

    Raises:
        UnavailableError: It does not answer.
        ConfigurationError: It was made with other settings.
    """
    assert settings.database_url
    database = await Database.open(settings, settings.database_url.get_secret_value(), connections=1)
    try:
        await database.migrate(embedding_model=settings.embedding_name)
    finally:
        await database.close()


async def wait_for_valkey(settings: Settings) -> None:
    """Wait until Valkey answers, because RQ's own command exits if it does not."""
    assert settings.valkey_url
    queue = JobQueue(settings, settings.valkey_url.get_secret_value())
    while True:
        try:
            await queue.ping()
        except UnavailableError as error:
            log.warning("waiting_for_service", error=str(error))
            await asyncio.sleep(1)
        else:
            return await queue.close()


async def wait_for_database(settings: Settings) -> None:
    """Wait until the migrations have run, and until `ragq reembed` has switched to this embedding model.

    A worker that claimed jobs before would fail them for good.
    """
    assert settings.database_url
    database = await Database.open(settings, settings.database_url.get_secret_value(), connections=1)
    try:
        while True:
            try:
                await database.check_ready()
                await database.vector_column()
            except UnavailableError as error:
                if error.code not in (MIGRATIONS_PENDING, OTHER_MODEL):  # the worker itself waits for PostgreSQL
                    return
                log.warning("waiting_for_database", error=str(error))
                await asyncio.sleep(1)
            else:
                return
    finally:
        await database.close()


if __name__ == "__main__":
    main()
