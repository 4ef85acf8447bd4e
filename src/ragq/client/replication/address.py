"""Where Valkey is: one server, or the primary that Sentinels name at the moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import redis.asyncio
from redis import exceptions
from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ragq.errors import ConfigurationError

SCHEMES = {"redis+sentinel": "redis", "valkey+sentinel": "redis", "rediss+sentinel": "rediss"}
SENTINEL_PORT = 26379
SENTINEL_SECONDS = 1.0  # a Sentinel that does not answer within this has no vote
FORM = "valkey+sentinel://USER:PASSWORD@HOST:26379,HOST:26379/NAME/0"

Host = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed `RAGQ_VALKEY_URL`.

    Attributes:
        options: redis-py's options of a connection; without host and port if there are Sentinels.
        sentinels: The Sentinels to ask; empty if the URL names a server.
        primary: The name by which Sentinels know the primary.
        sentinel_options: redis-py's options of a connection to a Sentinel.
    """

    options: dict[str, Any]
    sentinels: tuple[Host, ...] = ()
    primary: str = ""
    sentinel_options: dict[str, Any] | None = None

    @property
    def host(self) -> Host | None:
        """The server, or the first Sentinel; None for a socket."""
        if self.sentinels:
            return self.sentinels[0]
        return (self.options["host"], self.options.get("port", 6379)) if "host" in self.options else None

    async def find_primary(self) -> Host:
        """Ask all Sentinels at once, and return the host and port that most of them name.

        Raises:
            redis.exceptions.ConnectionError: None of them names one.
        """
        answers = await asyncio.gather(*map(self._ask, self.sentinels))
        if votes := Counter(answer for answer in answers if answer):
            return votes.most_common(1)[0][0]
        raise exceptions.ConnectionError(f"no Sentinel names a primary of '{self.primary}'")

    async def _ask(self, sentinel: Host) -> Host | None:
        options = {"retry": Retry(NoBackoff(), 0), **(self.sentinel_options or {})}
        connection = redis.asyncio.Redis(host=sentinel[0], port=sentinel[1], **options)
        try:
            async with asyncio.timeout(SENTINEL_SECONDS):
                found: Any = await connection.sentinel_get_master_addr_by_name(self.primary)
        except (exceptions.RedisError, OSError):  # a time-out is an OSError
            return None
        finally:
            await connection.aclose()
        return (_text(found[0]), int(found[1])) if found else None


def read_address(url: str) -> Address:
    """Parse a URL: redis-py's `redis://`, `rediss://` and `unix://`, or one of Sentinels.

    A URL of Sentinels is `valkey+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME/DATABASE`; user and password are those
    of Valkey. `?sentinel_username=` and `?sentinel_password=` are those of the Sentinels, other options are as for
    `redis://`. With `rediss+sentinel` both speak TLS.

    Raises:
        ConfigurationError: No host or name is given, or a port is not a number.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        return Address({**parse_url(url)})
    login, _, hosts = parts.netloc.rpartition("@")
    name, _, database = parts.path.strip("/").partition("/")
    query = dict(parse_qsl(parts.query))
    sentinel_options: dict[str, Any] = {
        option: query.pop(f"sentinel_{option}") for option in ("username", "password") if f"sentinel_{option}" in query
    }
    single = f"{SCHEMES[parts.scheme]}://{login}@/{database or 0}?{urlencode(query)}"  # as if it had no host
    try:
        options = {**parse_url(single)}
        sentinels = tuple(_read_host(host) for host in hosts.split(",") if host)
    except ValueError as error:
        raise ConfigurationError(f"RAGQ_VALKEY_URL cannot be read; it has the form {FORM}.") from error
    if not sentinels or not name:
        raise ConfigurationError(f"RAGQ_VALKEY_URL names no Sentinel or no primary; it has the form {FORM}.")
    sentinel_options |= {option: value for option, value in options.items() if option.startswith("ssl_")}
    if "connection_class" in options:
        sentinel_options["ssl"] = True
    return Address(options, sentinels, unquote(name), sentinel_options)


def _read_host(text: str) -> Host:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "", parts.port or SENTINEL_PORT


def _text(part: str | bytes) -> str:
    return part.decode() if isinstance(part, bytes) else part


class _PrimaryConnection(Connection):
    """A connection that asks the Sentinels each time it connects."""

    def __init__(self, *, address: Address, **options: Any) -> None:
        super().__init__(**options)
        self._address = address

    async def _connect(self) -> None:
        self.host, self.port = await self._address.find_primary()
        await super()._connect()  # type: ignore[no-untyped-call]


class _PrimaryTlsConnection(_PrimaryConnection, SSLConnection):
    """The same, with TLS."""


def connect(url: str, **options: Any) -> redis.asyncio.Redis:
    """Make redis-py's client of a URL, which finds the primary again whenever it connects.

    Args:
        options: Of redis-py's connections; they win over those of the URL.
    """
    address = read_address(url)
    if not address.sentinels:
        return redis.asyncio.Redis.from_url(url, **options)
    found = {**address.options, **options}
    kind = _PrimaryTlsConnection if "connection_class" in found else _PrimaryConnection
    pool = redis.asyncio.ConnectionPool(**{**found, "connection_class": kind}, address=address)
    return redis.asyncio.Redis.from_pool(pool)


def rq_sentinels(url: str) -> dict[str, Any] | None:
    """The setting `SENTINEL` of a bare `rq worker`; None for a URL that RQ reads itself."""
    if urlsplit(url).scheme not in SCHEMES:
        return None
    address = read_address(url)
    login = {name.upper(): address.options.get(name) for name in ("username", "password")}
    tls = {key: value for key, value in address.options.items() if key.startswith("ssl_")}
    return {
        "INSTANCES": list(address.sentinels),
        "MASTER_NAME": address.primary,
        "DB": address.options.get("db", 0),
        "SSL": bool((address.sentinel_options or {}).get("ssl")),
        "CONNECTION_KWARGS": tls,
        "SENTINEL_KWARGS": address.sentinel_options,
        **login,
    }
