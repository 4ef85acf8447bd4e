"""Which jobs to show or to change."""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

from ragq.errors import InvalidRequestError

LiveState = Literal["queued", "scheduled", "started"]
EndedState = Literal["finished", "failed", "canceled"]
JobState = LiveState | EndedState
LIVE: Final = get_args(LiveState)


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """Jobs by what they have in common; None is any.

    Attributes:
        queue: `queries` or `documents`, with all lanes.
        worker: That runs the job, or has ended it.
        text: Words of the question or the error, the last of which may be cut short, or a job's id.
        since: Seconds since 1970 of the end or, of a job that has not ended, of the beginning; `until`, exclusive, likewise.
        ids: These alone.
    """

    tenant: str | None = None
    state: JobState | None = None
    queue: str | None = None
    key: str | None = None
    worker: str | None = None
    error_code: str | None = None
    text: str | None = None
    since: float | None = None
    until: float | None = None
    ids: tuple[str, ...] | None = None

    @property
    def has_live(self) -> bool:
        """Whether jobs that have not ended may be among them."""
        return self.error_code is None and (self.state is None or self.state in LIVE)

    @property
    def has_ended(self) -> bool:
        return self.state is None or self.state not in LIVE


class Place(msgspec.Struct, frozen=True, array_like=True):
    """How far a list is read: behind this job.

    Attributes:
        at: Of a live job its deadline in ms, of an ended one its end in µs, since 1970.
    """

    kind: Literal["live", "ended"]
    at: int
    id: str

    def write(self) -> str:
        return f"{self.kind}.{self.at}.{self.id}"


START_OF_ENDED = Place("ended", 10**17, "")  # behind no job: it is in the year 5138


def read_place(text: str) -> Place:
    """Parse a cursor.

    Raises:
        InvalidRequestError: It is none.
    """
    kind, _, rest = text.partition(".")
    at, _, id_ = rest.partition(".")
    if kind not in ("live", "ended") or not at.isdigit() or len(at) > 18:
        raise InvalidRequestError(
            "This is not a cursor of this list: leave it out to list from the start.", param="after"
        )
    return Place("live" if kind == "live" else "ended", int(at), id_)


def read_selection(data: bytes | str) -> Selection:
    return msgspec.json.decode(data, type=Selection)


def write_selection(selection: Selection) -> str:
    return msgspec.json.encode(selection).decode()
