"""The messages of a request, of chat completions and of Responses, read into the one form that ragq works with.

Clients send back what they were sent, with fields of their own, so each class takes all fields that its kinds may have,
and reading it refuses only what would be lost: a question that nobody asks, or an item that cannot be found.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Literal

from pydantic import Field

from ragq.errors import InvalidRequestError
from ragq.models import Answer, AttachedFile, Message
from ragq.records import Job
from ragq.schemas.compaction import read_content as read_compaction
from ragq.schemas.objects import Body

TEXTS = ("text", "input_text", "output_text", "summary_text")
THOUGHTS = ("reasoning_text", "thinking", "reasoning")
_THINKING = re.compile(r"\A\s*<(think|thinking)>.*?</\1>\s*", re.DOTALL)  # at the beginning of an answer
MAX_FILES = 10
FILE_FIELDS = ("file_id", "file_data", "filename")
MEDIA_ENDINGS = {"application/pdf": ".pdf", "text/markdown": ".md"}
SUPPORTED_PARTS = "text, input_text, output_text, refusal, image_url, input_image, file and input_file"


class FileContent(Body):
    """A file of a chat's message: uploaded before, or brought along in base64 or as a data: URL."""

    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None


class Part(Body):
    """A part of a message: text, an image, a file, or sound."""

    type: str = "text"
    text: str | None = None
    refusal: str | None = None
    image_url: str | dict[str, Any] | None = None
    detail: str | None = None
    file: FileContent | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    input_audio: dict[str, Any] | None = None


Content = str | list[str | Part] | None


class ToolCallOut(Body):
    """A function that an earlier answer called."""

    id: str = ""
    type: str | None = "function"
    function: dict[str, Any] = Field(default_factory=dict)


class ChatMessage(Body):
    """A message of a chat. `tool` is the result of a function that the answer before called."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content = None
    refusal: str | None = None
    tool_calls: list[ToolCallOut] | None = None
    tool_call_id: str | None = None


class InputItem(Body):
    """An item of the input: a message, a function's call or its output, a compaction, or a part of an earlier answer."""

    type: str | None = None
    role: Literal["user", "system", "developer", "assistant"] | None = None
    content: Content = None
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | dict[str, Any] | None = None
    input: str | None = None
    output: Any = None
    encrypted_content: str | None = None


def read_chat(messages: list[ChatMessage]) -> list[Message]:
    """Read the messages of a chat completion."""
    read: list[Message] = []
    for place, message in enumerate(messages):
        content = read_content(message.content or message.refusal, f"messages.{place}.content")
        if message.role in ("tool", "function"):
            read.append({"role": "tool", "tool_call_id": message.tool_call_id or "", "content": _flat(content)})
        elif message.role == "assistant":
            calls = [_read_call(call.id, call.function.get("name"), call.function.get("arguments")) for call in message.tool_calls or []]  # fmt: skip
            read.append({"role": "assistant", "content": _flat(content)} | ({"tool_calls": calls} if calls else {}))
        else:
            read.append({"role": message.role, "content": content if message.role == "user" else _flat(content)})
    return read


def read_items(items: str | list[InputItem], *, name: str = "input") -> list[Message]:
    """Read the input of a response; what earlier answers searched and thought is left out, since it is not needed again.

    Args:
        name: The field of the request that has the items.
    """
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    read: list[Message] = []
    for place, item in enumerate(items):
        if item.type in (None, "message") and item.role:
            content = read_content(item.content, f"{name}.{place}.content")
            read.append({"role": item.role, "content": content if item.role == "user" else _flat(content)})
        elif item.type in ("function_call", "custom_tool_call"):
            call = _read_call(item.call_id or item.id or "", item.name, item.arguments or item.input)
            if read and read[-1].get("tool_calls") and read[-1]["role"] == "assistant":
                read[-1]["tool_calls"].append(call)
            else:
                read.append({"role": "assistant", "content": "", "tool_calls": [call]})
        elif item.type in ("function_call_output", "custom_tool_call_output"):
            read.append({"role": "tool", "tool_call_id": item.call_id or "", "content": _read_output(item.output)})
        elif item.type == "compaction":
            read += read_compaction(item.encrypted_content, f"{name}.{place}.encrypted_content")
        elif item.type in (None, "message"):
            raise InvalidRequestError(
                "The item has no role: give it one of user, assistant, system and developer, or a type.",
                code="missing_required_parameter",
                param=f"{name}.{place}.role",
            )
    return read


def _read_call(id_: str, name: Any, arguments: Any) -> dict[str, Any]:
    written = arguments if isinstance(arguments, str) else _write_json(arguments or {})
    return {"id": id_, "type": "function", "function": {"name": str(name or ""), "arguments": written}}


def read_content(content: Content, place: str) -> str | list[dict[str, Any]]:
    """Read the text of a message, or its parts if some are not text."""
    if isinstance(content, str) or content is None:
        return content or ""
    parts = [_read_part(part, f"{place}.{number}") for number, part in enumerate(content)]
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _read_part(part: str | Part, place: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if part.type in (*TEXTS, *THOUGHTS, "refusal"):
        return {"type": "text", "text": "" if part.type in THOUGHTS else part.text or part.refusal or ""}
    if part.type in ("image_url", "input_image"):
        return _read_image(part, place)
    if part.type in ("file", "input_file"):
        given = part.file or part
        return {"type": "file", "file": {name: value for name in FILE_FIELDS if (value := getattr(given, name))}}
    if part.type == "input_audio" and part.input_audio:
        return {"type": "input_audio", "input_audio": part.input_audio}
    kinds = f"'{part.type[:80]}', which is not supported; there are {SUPPORTED_PARTS}"
    raise _unsupported(f"{place}.type", kinds)


def _read_image(part: Part, place: str) -> dict[str, Any]:
    image = part.image_url if isinstance(part.image_url, dict) else {"url": part.image_url}
    if not isinstance(image.get("url"), str):
        raise _unsupported(place, "an image without a URL: send one as image_url, also a data: URL")
    return {"type": "image_url", "image_url": image | ({"detail": part.detail} if part.detail else {})}


def _unsupported(place: str, fault: str) -> InvalidRequestError:
    return InvalidRequestError(f"Wrong value for '{place}': it is {fault}.", code="invalid_value", param=place)


def _read_output(output: Any) -> str:
    """The text of a function's output, which may be text, parts, or any JSON."""
    if isinstance(output, str):
        return output
    if isinstance(output, list) and output and all(isinstance(part, dict) and "type" in part for part in output):
        return "\n".join(str(part.get("text") or f"[{part['type']}]") for part in output)
    return "" if output is None else _write_json(output)


def _flat(content: str | list[dict[str, Any]]) -> str:
    """The text alone, without what a model thought aloud."""
    if not isinstance(content, str):
        content = "\n".join(part["text"] for part in content if part["type"] == "text")
    return _THINKING.sub("", content)


def _write_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def check_files(files: list[AttachedFile], param: str) -> None:
    """Check the files that a question brings along.

    Raises:
        InvalidRequestError: There are too many, or one has no content.
    """
    if len(files) > MAX_FILES:
        raise InvalidRequestError(
            f"A question may bring {MAX_FILES} files along: put more into a vector store, and search it.", param=param
        )
    for file in files:
        if file.file_data:
            decode_file(file.file_data, param)
        elif not file.file_id:
            raise InvalidRequestError(
                "A file needs file_id, or file_data and filename. ragq fetches nothing from a file_url: upload the file.",
                code="invalid_value",
                param=param,
            )


def check_outputs(earlier: list[Message], own: list[Message]) -> None:
    """Check that what continues a response brings outputs of calls that were made.

    Raises:
        InvalidRequestError: A call is not known.
    """
    called = {call["id"] for message in (*earlier, *own) for call in message.get("tool_calls", ())}
    for message in own:
        if message["role"] == "tool" and message["tool_call_id"] not in called:
            raise InvalidRequestError(
                f"No tool call found for function call output with call_id {message['tool_call_id'][:80]}.",
                param="input",
            )


def decode_file(data: str, param: str = "file_data") -> bytes:
    """Decode a file from base64 or a data: URL.

    Raises:
        InvalidRequestError: It is neither.
    """
    try:
        return base64.b64decode(data.partition(",")[2] if data.startswith("data:") else data, validate=True)
    except ValueError as error:
        raise InvalidRequestError(
            "The file_data is not base64: send it so, or as a data: URL.", code="invalid_value", param=param
        ) from error


def name_file(filename: str | None, data: str) -> str:
    """The name of a file that came with a question, with the ending that its data: URL tells if it has none."""
    name = (filename or "file").rpartition("/")[2][-200:]
    media_type = data[:80].removeprefix("data:").partition(";")[0]
    return name if "." in name else name + MEDIA_ENDINGS.get(media_type, ".txt")


def input_of(job: Job) -> str | list[InputItem]:
    """The input of a stored job."""
    given = job.request.input
    return given if isinstance(given, str) else [InputItem.model_validate(item) for item in given]


def message_of(answer: Answer) -> Message:
    """An answer as a message of the conversation that goes on."""
    calls = [_read_call(call.id, call.name, call.arguments) for call in answer.tool_calls]
    return {"role": "assistant", "content": answer.text or answer.refusal} | ({"tool_calls": calls} if calls else {})
