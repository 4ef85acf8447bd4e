"""Answers in JSON: the schema that they are held to, how they are shown, and what supports their values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ragq.rag.citing.check import Evidence
from ragq.rag.citing.cite import Cited
from ragq.rag.citing.cite_json import cite_values
from ragq.rag.json_form import FormError, WholeJson, check_answer, check_schema, unwrap
from ragq.tasks import run_through
from tests.unit.test_answer import make_result

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "age": {"$ref": "#/$defs/age"}},
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"age": {"type": "integer", "minimum": 0}},
}


def form(schema: Any = SCHEMA) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}


def fault_of(text: str, response_format: dict[str, Any]) -> str:
    """What is wrong with an answer; empty if it fits."""
    try:
        check_answer(text, response_format)
    except FormError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("text", ['{"name": "Mara"}', ' {"name": "Mara", "age": 3} '])
def test_an_answer_that_fits_passes(text: str) -> None:
    assert fault_of(text, form()) == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Mara", "not JSON"),
        ('{"name": "Mara"', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "the whole breaks the schema's rule 'required'"),
        ('{"name": "mara"}', "name breaks the schema's rule 'pattern'"),
        ('{"name": "Mara", "age": -1}', "age breaks the schema's rule 'minimum'"),
        ('{"name": "Mara", "x": 1}', "'additionalProperties'"),
    ],
)
def test_an_answer_that_does_not_fit_is_told_where(text: str, told: str) -> None:
    assert told in fault_of(text, form())


def test_json_mode_wants_an_object() -> None:
    assert fault_of('{"a": 1}', {"type": "json_object"}) == ""
    assert fault_of("[1]", {"type": "json_object"}) == "it is not a JSON object"


@pytest.mark.parametrize("schema", [{"type": "objekt"}, {"properties": 7}, {"minimum": "a"}])
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(FormError):
        check_schema(schema)


def test_no_schema_is_fetched_from_elsewhere() -> None:
    assert "not in it" in fault_of("{}", form({"$ref": "http://127.0.0.1:1/schema.json"}))


def test_a_pattern_cannot_take_more_than_linear_time() -> None:
    assert "'pattern'" in fault_of(json.dumps("a" * 5000 + "b"), form({"type": "string", "pattern": "^(a+)+$"}))


@pytest.mark.parametrize("text", ['```json\n{"a": 1}\n```', '\n```\n{"a": 1}\n```\n', ' {"a": 1}'])
def test_json_is_taken_out_of_a_block_of_code(text: str) -> None:
    assert json.loads(unwrap(text)) == {"a": 1}


def test_json_is_shown_while_it_comes_and_anything_else_at_the_end() -> None:
    shown = WholeJson()
    assert [shown.add(piece) for piece in (" ", '\n{"a"', ": 1}\n")] == ["", '{"a"', ": 1}\n"]
    fenced = WholeJson()
    assert [fenced.add(piece) for piece in ("```json\n", '{"a": 1}', "\n```")] == ["", "", ""]


def check_values(values: object, question: str = "") -> Cited:
    sources = [
        make_result("Dogs bark. The lighthouse of Quorra is 61 metres tall. Ilse Brandt built it."),
        make_result("Cats hunt mice."),
    ]
    evidence = Evidence(question, sources, said=['{"enum": ["high", "low"]}'])
    run_through(evidence.read())
    return run_through(cite_values(json.dumps(values), evidence))


def test_each_value_is_a_statement_and_cited_by_the_sentence_that_holds_it() -> None:
    values = {"height": 61, "cats": "They hunt mice.", "builder": "Karl Brandt", "risk": "high", "open": True}
    text, citations, statements, _ = check_values(values)
    assert [(text[one.start : one.end], one.verdict, one.citations) for one in statements] == [
        ("61", "supported", [0]),
        ('"They hunt mice."', "supported", [1]),
        ('"Karl Brandt"', "unsupported", []),
        ('"high"', "uncited", []),
        ("true", "uncited", []),
    ]
    assert [one.quote for one in citations] == ["The lighthouse of Quorra is 61 metres tall.", "Cats hunt mice."]
    assert [text[: one.index].endswith(end) for one, end in zip(citations, ("61", 'mice."'), strict=True)] == [True] * 2


def test_one_false_sentence_makes_a_value_unsupported() -> None:
    _, citations, (statement,), _ = check_values(["Cats hunt mice. The lighthouse of Quorra is 62 metres tall."])
    assert statement.verdict == "unsupported"
    assert "62" in statement.reason
    assert [one.quote for one in citations] == ["Cats hunt mice."]
