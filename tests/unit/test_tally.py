"""What is counted for the audit log, with a log that fails."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from ragq.errors import InvalidRequestError, UnavailableError
from ragq.http.audit import Tally
from ragq.storage.tenancy.audit_log import AuditLog, Entry


class Log:
    """Fails to write the entries with some codes."""

    def __init__(self, **failures: BaseException) -> None:
        self.failures = failures
        self.written: list[tuple[str | None, int]] = []

    async def add(self, entry: Entry) -> None:
        if failure := self.failures.get(entry.code or ""):
            raise failure
        self.written.append((entry.code, entry.count))


def write(tally: Tally, log: Log) -> None:
    asyncio.run(tally.write(cast("AuditLog", log)))


def counted(*codes: str) -> Tally:
    tally = Tally()
    for code in codes:
        tally.count_wrong_key("192.0.2.7", code)
    return tally


@pytest.mark.parametrize(
    "failure", [UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "surrogates"), InvalidRequestError("U+0000")]
)
def test_what_cannot_be_written_keeps_nothing_else_from_the_log(failure: Exception) -> None:
    tally, log = counted("before", "bad", "bad", "after"), Log(bad=failure)
    write(tally, log)
    assert sorted(log.written, key=str) == [("after", 1), ("before", 1)]
    log.failures.clear()
    write(tally, log)
    assert len(log.written) == 2


@pytest.mark.parametrize("failure", [UnavailableError("away"), asyncio.CancelledError()])
def test_what_cannot_be_written_now_is_kept(failure: BaseException) -> None:
    tally, log = counted("a", "b", "b"), Log(a=failure, b=failure)
    with pytest.raises(type(failure)):
        write(tally, log)
    log.failures.clear()
    write(tally, log)
    assert sorted(log.written, key=str) == [("a", 1), ("b", 2)]
