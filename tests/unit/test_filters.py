"""Attribute filters: what is taken from a request, and what becomes of it in SQL."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from ragq.errors import PermanentError
from ragq.models import AttributeFilter
from ragq.schemas.filters import MAX_DEPTH, MAX_PARTS, MAX_VALUES, AttributeValues, Filter, make_filter
from ragq.storage.search.filter_sql import compile_filter

FILTER: TypeAdapter[Any] = TypeAdapter(Filter)
ATTRIBUTES: TypeAdapter[Any] = TypeAdapter(AttributeValues)
HOSTILE = "x'); DROP TABLE chunks; -- %s %(tenant)s {key}"


def comparison(type_: str = "eq", key: Any = "a", value: Any = 1) -> dict[str, Any]:
    return {"type": type_, "key": key, "value": value}


def nested(depth: int) -> dict[str, Any]:
    return comparison() if depth == 1 else {"type": "and", "filters": [nested(depth - 1)]}


@pytest.mark.parametrize(
    "taken",
    [
        comparison("eq", value="x"),
        comparison("ne", value=True),
        comparison("gte", value=2.5),
        comparison("lt", value="2026-01-01"),
        comparison("in", value=["x", 1.0, False]),
        comparison("nin", value=[]),
        {"type": "or", "filters": [comparison(value=1.0), {"type": "and", "filters": [comparison(value="x")]}]},
    ],
)
def test_a_filter_in_openais_form_is_taken_as_it_is(taken: dict[str, Any]) -> None:
    assert FILTER.validate_python(taken).model_dump(mode="json") == taken


@pytest.mark.parametrize(
    ("refused", "field"),
    [
        ({}, ()),
        ("a = 1", ()),
        (comparison("like"), ()),
        (comparison("gt", value=True), ("gt", "value")),
        (comparison("gt", value=[1]), ("gt", "value")),
        (comparison("in", value="x"), ("in", "value")),
        (comparison("in", value=[1.0] * (MAX_VALUES + 1)), ("in", "value")),
        (comparison("eq", value=None), ("eq", "value")),
        (comparison("eq", value="\0"), ("eq", "value")),
        (comparison("eq", value="\ud800"), ("eq", "value")),
        (comparison("eq", value=float("nan")), ("eq", "value")),
        (comparison("eq", value=10**400), ("eq", "value")),
        (comparison("eq", value="x" * 513), ("eq", "value")),
        (comparison("eq", key=""), ("eq", "key")),
        (comparison("eq", key="k" * 65), ("eq", "key")),
        ({"type": "and", "filters": []}, ("and", "filters")),
        ({"type": "and", "filters": [comparison("eq", key=7)]}, ("and", "filters", 0, "eq", "key")),
        ({"type": "or", "filters": [comparison()] * MAX_PARTS}, ()),
        (nested(MAX_DEPTH + 1), ()),
    ],
)
def test_anything_else_is_refused_with_its_field(refused: Any, field: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        FILTER.validate_python(refused)
    assert caught.value.errors()[0]["loc"] == field


def test_the_largest_filters_are_taken() -> None:
    assert FILTER.validate_python(nested(MAX_DEPTH))
    assert FILTER.validate_python({"type": "or", "filters": [comparison()] * (MAX_PARTS - 1)})


def test_attributes_are_words_numbers_and_booleans() -> None:
    good = {"word": "x", "number": 1.5, "flag": True}
    assert ATTRIBUTES.validate_python(good) == good
    for bad in ({"a": None}, {"a": [1]}, {"": 1}, {"a": "\0"}, {str(n): n for n in range(17)}):
        with pytest.raises(ValidationError):
            ATTRIBUTES.validate_python(bad)


@pytest.mark.parametrize("operator", ["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"])
def test_no_key_and_no_value_gets_into_the_sql(operator: Any) -> None:
    is_list = operator in ("in", "nin")
    plain, _ = compile_filter(AttributeFilter(operator, "a", ["b"] if is_list else "b"))
    sql, parameters = compile_filter(AttributeFilter(operator, HOSTILE, [HOSTILE] if is_list else HOSTILE))
    assert sql == plain
    assert HOSTILE in parameters.values()


def test_nested_filters_keep_their_brackets_and_their_own_parameters() -> None:
    inner = {"type": "or", "filters": [comparison(key="b"), comparison("gt", "c", 2)]}
    outer = FILTER.validate_python({"type": "and", "filters": [comparison(key="a"), inner]})
    sql, parameters = compile_filter(make_filter(outer))
    assert sql.startswith("(attributes -> %(filter_0)s")
    assert sql.endswith("))")
    assert " AND (attributes -> %(filter_2)s" in sql
    assert [parameters[f"filter_{number}"] for number in (0, 2, 4)] == ["a", "b", "c"]


def test_no_filter_matches_everything() -> None:
    assert compile_filter(None) == ("true", {})


@pytest.mark.parametrize(
    "broken", [AttributeFilter("and"), AttributeFilter("eq", "a", [1]), AttributeFilter("in", "a", "b")]
)
def test_a_filter_that_no_request_makes_fails_its_job(broken: AttributeFilter) -> None:
    with pytest.raises(PermanentError) as caught:
        compile_filter(broken)
    assert caught.value.code == "invalid_filter"
