"""Put tool calls together from the pieces in which a server streams them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ragq.completions.parts import storable_text
from ragq.models import ToolCall, new_id


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class ToolCalls:
    """The tool calls of one answer.

    Servers differ: a call comes in pieces or whole, with or without `index` and `id`, and some number every call 0.
    A piece continues the call of its index; without an index, the call of its id, else the last one. It begins a new call
    if it has a name and either no call to continue or another id than that call. Without index and id, a name always does.

    Attributes:
        characters: Length of all arguments and names so far.
    """

    def __init__(self) -> None:
        self.characters = 0
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, piece: dict[str, Any]) -> None:
        """Add one element of `tool_calls`, or `{"function": …}` for the older `function_call`.

        Raises:
            TypeError: A field has another type than text.
        """
        function = piece.get("function") or {}
        name, id_, index = function.get("name") or "", piece.get("id") or "", piece.get("index")
        call = self._find(index, id_)
        if call is None or (name and self._is_new(call, index, id_)):
            call = _Call()
            self._calls.append(call)
        if isinstance(index, int):
            self._by_index[index] = call
        arguments = function.get("arguments")
        text = _as_text(arguments)
        call.id = call.id or id_ + ""
        if id_:
            self._by_id.setdefault(id_, call)
        if name != call.name:  # some servers repeat the name in every piece
            call.name += name
        call.arguments.append(text)
        self.characters += len(text) + len(name)

    def _find(self, index: object, id_: str) -> _Call | None:
        if isinstance(index, int):
            return self._by_index.get(index)
        return self._by_id.get(id_) or (self._calls[-1] if self._calls else None)

    @staticmethod
    def _is_new(call: _Call, index: object, id_: str) -> bool:
        if id_ and call.id:
            return id_ != call.id
        return not isinstance(index, int)

    def finish(self, *, is_cut: bool) -> list[ToolCall]:
        """The complete calls, with an id each.

        Args:
            is_cut: The model met its output limit: a call whose arguments are not whole JSON is left out.

        Raises:
            ValueError: A call has no name.
        """
        ids = set[str]()
        made: list[ToolCall] = []
        for call in self._calls:
            arguments = storable_text("".join(call.arguments).strip()) or "{}"
            if is_cut and not _is_json(arguments):
                continue
            if not call.name:
                raise ValueError("a tool call has no name")
            id_ = storable_text(call.id)
            if not id_ or id_ in ids:
                id_ = new_id("call_")
            ids.add(id_)
            made.append(ToolCall(id_, storable_text(call.name), arguments))
        return made


def _as_text(arguments: object) -> str:
    if arguments is None:
        return ""
    if isinstance(arguments, str):
        return arguments
    if isinstance(arguments, dict):
        return json.dumps(arguments, ensure_ascii=False)
    raise TypeError("the arguments of a tool call are neither text nor an object")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
