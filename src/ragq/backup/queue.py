"""Read the queue for a backup, and write it into an empty Valkey.

Each job is read in one step of Valkey: its hash, its results and its events agree. Lists, leases and counts are not read: what a job's
hash says puts it where it belongs. So the jobs need not be read at one moment, and any Valkey can be read that allows SCAN.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Literal, NamedTuple, TypeVar

from ragq.client.scripts import read_scripts
from ragq.client.valkey_check import RESTORING
from ragq.client.valkey_client import Command, ValkeyClient, pairs, translate_errors
from ragq.models import JobStatus

T = TypeVar("T")
Kind = Literal["hash", "stream", "set", "zset", "string"]

JOBS_AT_ONCE = 20  # read by one transaction
SCAN_KEYS = 500
OF_A_JOB: dict[str, Kind] = {"job": "hash", "results": "stream", "events": "stream"}
OTHERS: dict[str, Kind] = {
    "tickets": "hash",
    "served": "hash",
    "bytes": "hash",
    "usage": "stream",
    "over_budget": "zset",
    "paused": "set",
    "closed": "zset",
    "suspended": "string",
}
TOKENS = "limit:tokens:"  # strings, one for each day and scope
UNFINISHED = {status.encode() for status in (JobStatus.QUEUED, JobStatus.STARTED, JobStatus.SCHEDULED)}
_READ: dict[Kind, tuple[str, ...]] = {  # commands, and what follows the key
    "hash": ("HGETALL",),
    "stream": ("XRANGE", "-", "+"),
    "set": ("SMEMBERS",),
    "zset": ("ZRANGE", "0", "-1", "WITHSCORES"),
    "string": ("GET",),
}


class Key(NamedTuple):
    """A key of the queue.

    Attributes:
        name: Without the prefix.
        value: As Valkey's reply: flat pairs of a hash or a sorted set, (id, flat pairs) of a stream, the members of a set, or
            the bytes of a string.
        ttl_ms: Below 0: none.
    """

    name: bytes
    value: Any
    ttl_ms: int


class QueueBackup:
    """Reads and writes the keys of a queue."""

    def __init__(self, url: str, prefix: str) -> None:
        self._valkey = ValkeyClient(url)
        self._prefix = prefix
        self._waiting: dict[str, int] = {}  # the ticket of each unended job that was written
        self._ended: set[str] = set()
        self._bytes: dict[str, bytes] = {}

    async def close(self) -> None:
        await self._valkey.close()

    async def now_ms(self) -> int:
        """Valkey's clock, ms since 1970."""
        seconds, microseconds = await self._call("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def read(self) -> AsyncIterator[list[Key]]:
        """Yield what has to be kept. A job that is there from the beginning to the end is among it, perhaps twice: the later one counts."""
        async for jobs in self._scan("job:*"):
            for some in _batches(jobs, JOBS_AT_ONCE):
                ids = [job.partition(b":")[2] for job in some]
                keys = [(what.encode() + b":" + id_, kind) for id_ in ids for what, kind in OF_A_JOB.items()]
                yield await self._read_keys(keys)
        others = [(name.encode(), kind) for name, kind in OTHERS.items()]
        async for names in self._scan(f"{TOKENS}*"):
            others += [(name, "string") for name in names]
        yield await self._read_keys(others)

    async def _read_keys(self, keys: Sequence[tuple[bytes, Kind]]) -> list[Key]:
        commands: list[Command] = []
        for name, kind in keys:
            command, *after = _READ[kind]
            commands += [[command, self._key(name), *after], ["PTTL", self._key(name)]]
        async with translate_errors():
            *_, replies = await self._valkey.call_all([["MULTI"], *commands, ["EXEC"]])
        found = zip(keys, replies[::2], replies[1::2], strict=True)
        # An error is of a key that another program made something else of: it is left out, as nobody can use it.
        return [Key(name, value, ttl) for (name, _), value, ttl in found if value and not isinstance(value, Exception)]

    async def describe(self) -> str:
        """What Valkey has under this prefix, in words; empty if nothing, or what an interrupted restore left."""
        if await self.read_mark():
            return ""
        jobs = keys = 0
        async for names in self._scan("*"):
            keys += len(names)
            jobs += sum(name.startswith(b"job:") for name in names)
        return f"{jobs} jobs, {keys - jobs} other keys" if keys else ""

    async def read_mark(self) -> str:
        """The mark of a restore that was begun and not completed; empty if there is none."""
        return bytes(await self._call("GET", self._key(RESTORING.encode())) or b"").decode()

    async def begin(self, mark: str) -> None:
        """Begin a restore: note its mark, and delete what an interrupted one left."""
        await self._call("SET", self._key(RESTORING.encode()), mark)
        async for names in self._scan("*"):
            if left := [self._key(name) for name in names if name != RESTORING.encode()]:
                await self._call("UNLINK", *left)

    async def write(self, keys: list[Key]) -> None:
        """Write keys. Jobs are put into their lists by `finish`."""
        commands = list(chain.from_iterable(self._commands(key) for key in keys))
        if commands:
            async with translate_errors():
                await self._valkey.transact(commands)

    def _commands(self, key: Key) -> Iterator[Command]:
        what, _, rest = key.name.partition(b":")
        if what == b"job":
            self._note(rest.decode(errors="surrogateescape"), pairs(key.value))
        if what == b"bytes":
            self._bytes = {id_.decode(errors="surrogateescape"): size for id_, size in pairs(key.value).items()}
            return
        name = self._key(key.name)
        kind = OF_A_JOB.get(what.decode()) or OTHERS.get(what.decode(), "string")
        yield ["DEL", name]
        if kind == "hash":
            yield ["HSET", name, *key.value]
        elif kind == "stream":
            for id_, fields in key.value:
                yield ["XADD", name, id_, *fields]
        elif kind == "set":
            yield ["SADD", name, *key.value]
        elif kind == "zset":
            yield ["ZADD", name, *chain.from_iterable((score, one) for one, score in pairs(key.value).items())]
        else:
            yield ["SET", name, key.value]
        if key.ttl_ms > 0:
            yield ["PEXPIRE", name, key.ttl_ms]

    def _note(self, job_id: str, fields: Mapping[bytes, bytes]) -> None:
        self._waiting.pop(job_id, None)
        self._ended.discard(job_id)
        if fields.get(b"status") in UNFINISHED:
            ticket = fields.get(b"ticket", b"0")
            self._waiting[job_id] = int(ticket) if ticket.isdigit() else 0
        else:
            self._ended.add(job_id)

    async def finish(
        self, *, later_ms: int, ttl_seconds: int, ended: Collection[str], deleted: Collection[str]
    ) -> None:
        """Put the jobs that were written into their lists, the oldest first.

        Args:
            later_ms: How much later than the backup it is; the deadlines move by it, so that jobs have the time left that they had.
            ttl_seconds: How long ended jobs stay.
            ended: Jobs that PostgreSQL knows to have ended since they were read: they are not run again.
            deleted: Jobs that were deleted since then.
        """
        gone = (self._waiting.keys() & {*ended, *deleted}) | (self._ended & set(deleted))
        for some in _batches(gone, SCAN_KEYS):
            keys = [self._key(f"{what}:".encode() + _raw(id_)) for id_ in some for what in OF_A_JOB]
            await self._call("UNLINK", *keys)
        waiting = sorted(self._waiting.keys() - gone, key=lambda id_: self._waiting[id_])
        script = read_scripts()["restore"]
        for some in _batches([*waiting, *(self._ended - gone)], SCAN_KEYS):
            entries = chain.from_iterable((_raw(id_), self._bytes.get(id_, b"")) for id_ in some)
            await self._call("EVAL", script, 0, self._prefix, ttl_seconds, later_ms, *entries)

    async def end(self) -> None:
        """Note that the restore is complete."""
        await self._call("DEL", self._key(RESTORING.encode()))

    async def _scan(self, pattern: str) -> AsyncIterator[list[bytes]]:
        """Yield the names of keys, without the prefix."""
        start = self._key(b"")
        cursor = b"0"
        while True:
            cursor, keys = await self._call("SCAN", cursor, "MATCH", f"{self._prefix}:{pattern}", "COUNT", SCAN_KEYS)
            if keys:
                yield [key.removeprefix(start) for key in keys]
            if cursor == b"0":
                return

    def _key(self, name: bytes) -> bytes:
        return f"{self._prefix}:".encode() + name

    async def _call(self, *command: str | bytes | float) -> Any:
        async with translate_errors():
            return await self._valkey.call(*command)


def _raw(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
