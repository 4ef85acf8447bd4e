"""A span of a trace, and the one that records nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Literal, Self

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, Any]  # values: a word, a number, a boolean, or a list of words


class Span:
    """A span, used as `with span(…) as one:`; it ends with the block. An exception marks it as failed. This class records nothing."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the span."""

    def set(self, attributes: Attributes) -> None:
        """Add attributes; None values are left out."""

    def rename(self, name: str) -> None:
        """Give it another name."""

    def fail(self, code: str) -> None:
        """Mark it as failed, with the code of the error."""


NO_SPAN: Final = Span()
