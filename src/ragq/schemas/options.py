"""What of a request is the LLM's affair: tools, the form of the answer, and how it is generated.

Everything here has the form of OpenAI's chat completions, in which ragq calls an LLM.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ragq.errors import InvalidRequestError
from ragq.rag.json_form import FORMATS, FormError, check_schema

# Fields of OpenAI's, and those that servers of local models and other providers know.
PASSED_ON = (
    *("stop", "seed", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "prediction"),
    *("reasoning_effort", "verbosity", "user", "prompt_cache_key", "prompt_cache_retention"),
    *("safety_identifier", "parallel_tool_calls"),
    *("top_k", "top_a", "min_p", "typical_p", "tfs_z", "repeat_penalty", "repetition_penalty", "length_penalty"),
    *("mirostat", "mirostat_eta", "mirostat_tau", "min_tokens", "ignore_eos", "num_ctx", "num_predict", "keep_alive"),
    *("chat_template_kwargs", "think", "thinking", "enable_thinking", "reasoning", "include_reasoning", "provider"),
    *(
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
        "structured_outputs",
        "grammar",
        "cache_prompt",
    ),
)
NO_EFFECT: dict[str, Any] = {
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logprobs": False,
    "top_logprobs": 0,
    "parallel_tool_calls": True,
}
NEEDS_LLM = "{0} needs an LLM, and this service answers with sentences of the documents: set RAGQ_LLM_BASE_URL, or leave it out."


@dataclass(frozen=True, slots=True)
class Tools:
    """The client's tools.

    Attributes:
        functions: Those that an LLM can call.
        choice: OpenAI's `tool_choice` for them; None leaves it to the LLM.
        ignored: Types of tools that ragq does not have.
    """

    functions: list[dict[str, Any]] = field(default_factory=list)
    choice: Any = None
    ignored: list[str] = field(default_factory=list)

    @property
    def options(self) -> dict[str, Any]:
        """The fields for an LLM."""
        if not self.functions:
            return {}
        return {"tools": self.functions} | ({"tool_choice": self.choice} if self.choice else {})


def read_options(given: Mapping[str, Any], extra: Iterable[str] = ()) -> dict[str, Any]:
    """Take the fields to pass on; those that are empty, or say what is so anyway, are left out.

    Args:
        extra: Names of further fields, those of `RAGQ_LLM_EXTRA_FIELDS`.
    """
    passed = {name: given[name] for name in (*PASSED_ON, *extra) if given.get(name) not in (None, [], {}, "")}
    return {name: value for name, value in passed.items() if NO_EFFECT.get(name) != value}


def read_tools(tools: list[dict[str, Any]], choice: Any, *, has_search: bool = False) -> Tools:
    """Read tools and the choice among them, in the form of chat completions or of Responses.

    Args:
        has_search: The search is one of the tools, so that a required call is made in any case.

    Raises:
        InvalidRequestError: A call is required of a tool that is not there.
    """
    functions = [_read_function(tool, place) for place, tool in enumerate(tools) if tool.get("type") == "function"]
    ignored = sorted({str(tool.get("type")) for tool in tools} - {"function", "file_search"})
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if kind == "allowed_tools":
        allowed = choice.get("allowed_tools") or choice
        named = {_name_of(tool) for tool in allowed.get("tools") or []}
        functions = [tool for tool in functions if tool["function"]["name"] in named]
        kind = "required" if allowed.get("mode") == "required" else "auto"
    if kind in (None, "auto", "file_search") or (kind == "required" and has_search):
        return Tools(functions, None, ignored)
    if kind == "function":
        name = _name_of(choice)
        if name not in {tool["function"]["name"] for tool in functions}:
            raise _wrong_choice(f"there is no function '{name}' in tools")
        return Tools(functions, {"type": "function", "function": {"name": name}}, ignored)
    if kind == "required" and not functions and ignored:
        raise _wrong_choice(f"a call is required, but ragq has no tool of type {', '.join(ignored)}")
    if kind in ("required", "none"):
        return Tools(functions, kind, ignored)
    raise _wrong_choice(f"ragq has no tool of type '{kind}'. Use auto, none, required, or one of your functions")


def _wrong_choice(fault: str) -> InvalidRequestError:
    return InvalidRequestError(f"Wrong value for 'tool_choice': {fault}.", code="invalid_value", param="tool_choice")


def _name_of(tool: Mapping[str, Any]) -> str:
    inner = tool.get("function")
    return str((inner if isinstance(inner, dict) else tool).get("name") or "")


def _read_function(tool: dict[str, Any], place: int) -> dict[str, Any]:
    inner = tool.get("function")
    given = inner if isinstance(inner, dict) else tool
    if not isinstance(given.get("name"), str) or not given["name"]:
        raise InvalidRequestError(
            f"Wrong value for 'tools.{place}.name': a function needs a name.",
            code="missing_required_parameter",
            param=f"tools.{place}.name",
        )
    known = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: given[name] for name in known if given.get(name) is not None}}


def read_format(given: Mapping[str, Any] | None, place: str) -> dict[str, Any]:
    """Read the form that the answer must have; empty for text.

    Raises:
        InvalidRequestError: There is no such form, or the schema is not one.
    """
    kind = (given or {}).get("type") or "text"
    if given is None or kind == "text":
        return {}
    if kind not in FORMATS:
        raise InvalidRequestError(
            f"Wrong value for '{place}.type': '{str(kind)[:80]}' is not supported; there are text, json_object and "
            "json_schema.",
            code="invalid_value",
            param=f"{place}.type",
        )
    if kind == "json_object":
        return {"response_format": {"type": kind}}
    inner = given.get("json_schema")
    given, place = (inner, f"{place}.json_schema") if isinstance(inner, dict) else (given, place)
    schema = given.get("schema")
    if not isinstance(schema, dict):
        raise InvalidRequestError(
            f"Wrong value for '{place}.schema': give the JSON schema as an object.",
            code="missing_required_parameter",
            param=f"{place}.schema",
        )
    try:
        check_schema(schema)
    except FormError as error:
        raise InvalidRequestError(
            f"Wrong value for '{place}.schema': {error}.", code="invalid_json_schema", param=f"{place}.schema"
        ) from error
    known = {name: given[name] for name in ("description", "strict") if given.get(name) is not None}
    return {
        "response_format": {
            "type": kind,
            "json_schema": {"name": given.get("name") or "answer", "schema": schema, **known},
        }
    }


def refuse_without_llm(options: Mapping[str, Any], *, place_of_format: str) -> None:
    """Refuse what only an LLM can do; what changes nothing is ignored.

    Raises:
        InvalidRequestError: Sentences of the documents are not what was asked for.
    """
    if "response_format" in options:
        raise _needs_llm("JSON", place_of_format)
    if options.get("tool_choice") not in (None, "none"):
        raise _needs_llm("A required call of a tool", "tool_choice")
    if options.get("logprobs"):
        raise _needs_llm("The probability of tokens", "logprobs")


def _needs_llm(what: str, param: str) -> InvalidRequestError:
    return InvalidRequestError(NEEDS_LLM.format(what), code="llm_required", param=param)
