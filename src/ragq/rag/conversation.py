"""Put a conversation in the form that every LLM takes: turns that alternate, and tool calls with their results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ragq.models import AttachedFile, Message

RULES = ("system", "developer")
HISTORY_MESSAGES = 10
HISTORY_CHARACTERS = 8000


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation around its last question; the parts are those of `Question`."""

    instructions: str | None
    history: list[Message]
    text: str
    media: list[dict[str, Any]]
    following: list[Message]
    files: list[AttachedFile]


def text_of(message: Message) -> str:
    """The text of a message, without its other parts."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def read_conversation(messages: list[Message]) -> Conversation | None:
    """Find the last question of a conversation; None if nobody asks anything.

    Empty turns are left out, and turns of one speaker in a row are joined. A tool call stays only with its result, and
    a result only with its call. What comes before the first question is left out. A conversation that has only
    instructions asks what the last of them says.
    """
    files = [_read_file(part["file"]) for message in messages for part in _parts(message) if part["type"] == "file"]
    rules = [text for message in messages if message["role"] in RULES and (text := text_of(message).strip())]
    turns = _flatten(_settle([_without_files(message) for message in messages if message["role"] not in RULES]))
    places = [place for place, turn in enumerate(turns) if turn["role"] == "user"]
    if not places:
        if not rules:
            return None
        *rules, text = rules
        return Conversation("\n".join(rules) or None, [], text, [], [], files)
    history, question, following = turns[: places[-1]], turns[places[-1]], turns[places[-1] + 1 :]
    media = [part for part in _parts(question) if part["type"] != "text"]
    return Conversation("\n".join(rules) or None, history, text_of(question), media, following, files)


def bound_history(history: list[Message]) -> list[Message]:
    """Keep the last messages of a conversation, from one of the user's on, without tool calls.

    The oldest of those kept may lose its end.
    """
    spoken = [message for message in history if message["role"] != "tool" and not message.get("tool_calls")]
    kept: list[Message] = []
    left = HISTORY_CHARACTERS
    for message in reversed(spoken[-HISTORY_MESSAGES:]):
        text = text_of(message)
        if left > 0:
            kept.insert(0, message if len(text) <= left else message | {"content": text[:left]})
        left -= len(text)
    while kept and kept[0]["role"] != "user":
        del kept[0]
    return _flatten(_settle(kept))


def bound_text(text: str, limit: int) -> str:
    """What is searched for: of a text over the limit, its beginning and its end, where questions are asked."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half].rpartition(' ')[0] or text[:half]}\n{text[-half:].partition(' ')[2] or text[-half:]}"


@dataclass(slots=True)
class _Turn:
    role: str
    contents: list[Any]
    calls: list[dict[str, Any]]
    results: dict[int, Message]  # results of its calls, by their place


def _settle(messages: list[Message]) -> list[_Turn]:
    """Join and order the turns, in time linear in their number."""
    turns: list[_Turn] = []
    for turn in _pair_results(messages):
        turn.contents = [content for content in turn.contents if content]
        if not (turn.contents or turn.results):
            continue
        last = turns[-1] if turns else None
        if last and last.role == turn.role and not last.results:
            last.contents += turn.contents
            last.calls, last.results = turn.calls, turn.results
        elif turns or turn.role == "user":
            turns.append(turn)
    return turns


def _pair_results(messages: list[Message]) -> list[_Turn]:
    """Put each result to the latest call of its id that has none: some clients use an id again."""
    turns: list[_Turn] = []
    open_calls: dict[str, list[tuple[_Turn, int]]] = {}
    for message in messages:
        if message["role"] == "tool":
            if waiting := open_calls.get(message["tool_call_id"]):
                turn, place = waiting.pop()
                turn.results[place] = message
            continue
        turn = _Turn(message["role"], [message["content"]], message.get("tool_calls") or [], {})
        turns.append(turn)
        for place, call in enumerate(turn.calls):
            open_calls.setdefault(call["id"], []).append((turn, place))
    return turns


def _flatten(turns: list[_Turn]) -> list[Message]:
    messages: list[Message] = []
    for turn in turns:
        message = {"role": turn.role, "content": _join(turn.contents)}
        answered = sorted(turn.results)
        calls = {"tool_calls": [turn.calls[place] for place in answered]} if answered else {}
        messages += [message | calls, *(turn.results[place] for place in answered)]
    return messages


def _parts(message: Message) -> list[dict[str, Any]]:
    return message["content"] if isinstance(message["content"], list) else []


def _read_file(file: dict[str, Any]) -> AttachedFile:
    return AttachedFile(file.get("file_id"), file.get("file_data"), file.get("filename"))


def _without_files(message: Message) -> Message:
    kept = [part for part in _parts(message) if part["type"] != "file"]
    return message | {"content": kept} if len(kept) < len(_parts(message)) else message


def _join(contents: list[Any]) -> Any:
    """Join the contents of messages: texts to a text, others to parts."""
    if all(isinstance(content, str) for content in contents):
        return "\n\n".join(contents)
    parts = [[{"type": "text", "text": one}] if isinstance(one, str) else one for one in contents]
    return [part for content in parts for part in content]
