"""The scripted LLM's rules: which tool it calls, what JSON it fills in, what it says."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

COMMON_WORDS = frozenset(
    "get find fetch look up show tell call run the a an to of for and my in current transfer agent".split()
)
IMAGE_ANSWER = "The image shows a small picture."
TASK_KEYS = {
    "title": "The lighthouse of Quorra",
    "tags": ["Travel", "Lighthouses"],
    "follow_ups": ["When was it built?", "Is it open?"],
    "queries": [],
}


@dataclass(frozen=True)
class Answer:
    """A text, or calls of tools as (name, arguments)."""

    text: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    finish: str = "stop"


@dataclass(frozen=True)
class Turn:
    """What a request says since the last message of the user."""

    prompt: str
    question: str
    has_image: bool
    results: dict[str, str]


def answer_to(body: dict[str, Any]) -> Answer:
    """Answer a chat request."""
    turn = read_turn(body["messages"])
    if tool := choose_tool(body, turn):
        schema = tool.get("parameters") or {}
        return Answer(calls=[(tool["name"], fill(schema, turn, schema))], finish="tool_calls")
    return cut(body, write_text(body, turn))


def read_turn(messages: list[dict[str, Any]]) -> Turn:
    """Read the last question, and the results of the tools that were called for it."""
    places = [index for index, message in enumerate(messages) if message["role"] == "user"]
    last = places[-1] if places else 0
    names = {call["id"]: call["function"]["name"] for message in messages for call in message.get("tool_calls") or []}
    results = {
        names.get(message.get("tool_call_id", ""), "tool"): text_of(message)
        for message in messages[last:]
        if message["role"] == "tool"
    }
    prompt = "\n\n".join(text_of(message) for message in messages)
    content = messages[last].get("content")
    has_image = isinstance(content, list) and any(part.get("type") == "image_url" for part in content)
    asked = text_of(messages[last]).rpartition("Question:")[2]
    question = re.split(r"</context>|</attached_files>", asked)[-1].strip()  # Open WebUI puts files before a question
    return Turn(prompt, question, has_image, results)


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content)


def choose_tool(body: dict[str, Any], turn: Turn) -> Any:
    """The tool to call: the one demanded, else one whose name's words are all in the question; each once a turn."""
    choice = body.get("tool_choice") or "auto"
    tools = [tool["function"] for tool in body.get("tools") or [] if tool.get("type") == "function"]
    if choice == "none":
        return None
    left = [tool for tool in tools if tool["name"] not in turn.results]
    if isinstance(choice, dict):
        name = (choice.get("function") or choice).get("name")
        return next((tool for tool in left if tool["name"] == name), None)
    words = set(re.findall(r"[a-z]+", turn.question.lower()))
    asked = [tool for tool in left if (wanted := words_of(tool["name"])) and wanted <= words]
    if asked:
        return asked[0]
    return (left or tools)[-1] if choice == "required" and tools else None


def words_of(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())) - COMMON_WORDS


def write_text(body: dict[str, Any], turn: Turn) -> str:
    """Write what a model would, in the order of what binds it most."""
    response_format = body.get("response_format") or {}
    if response_format.get("type") == "json_schema":
        schema = response_format["json_schema"].get("schema") or {}
        return json.dumps(fill(schema, turn, schema))
    if schema := schema_in(turn.prompt):
        return json.dumps(fill(schema, turn, schema))
    if response_format.get("type") == "json_object":
        return json.dumps({"answer": said(turn)})
    if asked := re.search(r'"(title|tags|follow_ups|queries)"\s*:', turn.question):
        return json.dumps({asked[1]: TASK_KEYS[asked[1]]})
    if turn.has_image:
        return IMAGE_ANSWER
    return said(turn)


def schema_in(prompt: str) -> Any:
    """The JSON schema that a prompt asks for in words, or nothing."""
    if asked := re.search(r"json_schema:\s*(?=\{)", prompt):
        return json.JSONDecoder().raw_decode(prompt[asked.end() :])[0]
    if asked := re.search(r"JSON object in the following order of fields: (.+)", prompt):
        fields = re.findall(r"`(\w+)`( \(must be formatted as a valid Python int\))?", asked[1])
        return {"properties": {name: {"type": "integer" if is_int else "string"} for name, is_int in fields}}
    return {}


def said(turn: Turn) -> str:
    """An answer in plain text: from tools, else what was dictated, else from the sources."""
    if turn.results:
        told = "; ".join(f"{name}: {result}" for name, result in turn.results.items())
        return f"The tools say: {told}"
    if dictated := re.search(r"[Rr]eply with exactly: (.+)", turn.question):
        return dictated[1].strip()
    if rewritten := re.search(r"Last question: (.+)\Z", turn.question, re.DOTALL):
        return rewritten[1].strip()
    return cited_sentence(turn) or "The sources do not answer this question."


def cited_sentence(turn: Turn) -> str:
    """The sentence of the sources that shares most words with the question, cited."""
    words = set(re.findall(r"\w{3,}", turn.question.lower()))
    best, most = "", 0
    for number, source in sources_of(turn.prompt):
        for sentence in re.split(r"(?<=[.!?])\s+", " ".join(source.replace("#", "").split())):
            shared = len(words & set(re.findall(r"\w{3,}", sentence.lower())))
            if shared > most:
                best, most = f"{sentence} [{number}]", shared
    return best


def sources_of(prompt: str) -> list[tuple[str, str]]:
    """The numbers and texts of ragq's sources, and of those that Open WebUI puts into a question."""
    found = re.findall(r"(?<!end of )source \[(\d+)\][^\n]*\n(.*?)(?=\n<<|\Z)", prompt, re.DOTALL)
    return found + re.findall(r'<source id="(\d+)" [^>]*>(.*?)</source>', prompt, re.DOTALL)


def fill(schema: dict[str, Any], turn: Turn, root: dict[str, Any], name: str = "") -> Any:  # noqa: PLR0911
    """Make a value that fits a JSON schema, from the question and the sources."""
    if "$ref" in schema:
        _, _, key = schema["$ref"].rpartition("/")
        return fill((root.get("$defs") or root.get("definitions") or {})[key], turn, root, name)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if options := [option for option in schema.get(union) or [] if option.get("type") != "null"]:
            return fill(options[0], turn, root, name)
    kind = schema.get("type") or ("object" if "properties" in schema else "string")
    kind = next((each for each in kind if each != "null"), "null") if isinstance(kind, list) else kind
    if kind == "object":
        return {key: fill(value, turn, root, key) for key, value in (schema.get("properties") or {}).items()}
    if kind == "array":
        return [fill(schema.get("items") or {}, turn, root, name)] * max(1, schema.get("minItems", 1))
    if kind in ("integer", "number"):
        number = re.search(r"\d+", cited_sentence(turn).rpartition("[")[0] or turn.question)
        return int(number[0]) if number else int(schema.get("minimum", 1))
    return {"boolean": True, "null": None}.get(kind, words_for(name, turn))


def words_for(name: str, turn: Turn) -> str:
    """A string for a property, by its name."""
    if re.search(r"city|location|place|town", name):
        place = re.search(r"\b(?:in|at|of|for) ((?:[A-Z]\w+ ?)+)", turn.question)
        return place[1].strip() if place else "Quorra"
    return turn.question if re.search(r"query|question|input", name) else said(turn)


def cut(body: dict[str, Any], text: str) -> Answer:
    """End the text at the first stop sequence, and at the limit of tokens (here: words)."""
    stop = body.get("stop") or []
    for sequence in [stop] if isinstance(stop, str) else stop:
        text = text.partition(sequence)[0]
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or 0
    words = re.findall(r"\s*\S+", text)
    if 0 < limit < len(words):
        return Answer("".join(words[:limit]), finish="length")
    return Answer(text)
