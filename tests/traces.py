"""Look for a text in everything that PostgreSQL and Valkey hold, by their own lists of tables and keys."""

from __future__ import annotations

import base64
import contextlib
import re
import zlib
from collections.abc import Iterator
from typing import Any

import psycopg
import redis


def rows_with(database_url: str, sought: str) -> dict[str, set[str]]:
    """The tables with rows in which a text is found, in any column of any type, and the words there that begin with it."""
    found: dict[str, set[str]] = {}
    with psycopg.connect(database_url) as connection:
        tables = connection.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        assert len(tables) > 15
        for (table,) in tables:
            query = f"SELECT t::text FROM {table} t WHERE t::text LIKE %s OR t::text LIKE %s"
            for (row,) in connection.execute(query, [f"%{sought}%", f"%{sought.encode().hex()}%"]).fetchall():
                found.setdefault(table, set()).update(re.findall(rf"{sought}\w*", row) or {"as bytes"})
    return found


READS: dict[str, tuple[str, tuple[int, ...]]] = {
    "hash": ("hgetall", ()),
    "string": ("get", ()),
    "list": ("lrange", (0, -1)),
    "set": ("smembers", ()),
    "zset": ("zrange", (0, -1)),
    "stream": ("xrange", ()),
}


def valkey_lives(url: str, sought: str) -> dict[str, int]:
    """The seconds that each key with a text has left; -1: it stays. Results, which RQ has as base64, are decoded."""
    found = {}
    with redis.Redis.from_url(url) as valkey:
        for key in valkey.scan_iter(count=1000):
            kind = valkey.type(key).decode()
            if kind == "none":  # it has just expired
                continue
            name, more = READS[kind]
            content = getattr(valkey, name)(key, *more)
            if any(sought.encode() in part for part in _decoded((key, content))):
                found[key.decode()] = valkey.ttl(key)
    return found


def _decoded(content: Any) -> Iterator[bytes]:
    """All texts of a reply, each also as what it may encode."""
    if isinstance(content, bytes):
        yield content
        with contextlib.suppress(ValueError):
            plain = base64.b64decode(content, validate=True)
            yield plain
            with contextlib.suppress(zlib.error):
                yield zlib.decompress(plain)
    elif isinstance(content, dict):
        yield from _decoded([*content, *content.values()])
    elif isinstance(content, (list, tuple, set)):
        for part in content:
            yield from _decoded(part)
