"""Put a conversation in the form that every LLM takes: turns that alternate, and tool calls with their results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ragq.models import Message

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
    files: list[dict[str, Any]]


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
    files = [part["file"] for message in messages for part in _parts(message) if part["type"] == "file"]
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
    message: Message
    results: dict[int, Message]  # results of its tool calls, by their place


def _settle(messages: list[Message]) -> list[_Turn]:
    told: list[_Turn] = []
    for message in messages:
        if message["role"] == "tool":
            _attach_result(told, message)
        else:
            told.append(_Turn(message, {}))
    turns: list[_Turn] = []
    for turn in told:
        message = turn.message
        if not (message["content"] or turn.results):
            continue
        if turns and turns[-1].message["role"] == message["role"] and not turns[-1].results:
            content = _join(turns[-1].message["content"], message["content"])
            turns[-1] = _Turn(message | {"content": content}, turn.results)
        elif turns or message["role"] == "user":
            turns.append(turn)
    return turns


def _attach_result(turns: list[_Turn], result: Message) -> None:
    """Put a result to the latest call of its id that has none: some clients use an id again."""
    for turn in reversed(turns):
        for place, call in enumerate(turn.message.get("tool_calls") or []):
            if call["id"] == result["tool_call_id"] and place not in turn.results:
                turn.results[place] = result
                return


def _flatten(turns: list[_Turn]) -> list[Message]:
    messages: list[Message] = []
    for turn in turns:
        message = {name: value for name, value in turn.message.items() if name != "tool_calls"}
        if turn.results:
            answered = sorted(turn.results)
            calls = [turn.message["tool_calls"][place] for place in answered]
            messages += [message | {"tool_calls": calls}, *(turn.results[place] for place in answered)]
        else:
            messages.append(message)
    return messages


def _parts(message: Message) -> list[dict[str, Any]]:
    return message["content"] if isinstance(message["content"], list) else []


def _without_files(message: Message) -> Message:
    kept = [part for part in _parts(message) if part["type"] != "file"]
    return message | {"content": kept} if len(kept) < len(_parts(message)) else message


def _join(first: Any, second: Any) -> Any:
    """Join the contents of two messages."""
    if isinstance(first, str) and isinstance(second, str):
        return "\n\n".join(filter(None, (first, second)))
    parts = [[{"type": "text", "text": one}] if isinstance(one, str) else one for one in (first, second) if one]
    return [part for content in parts for part in content]
