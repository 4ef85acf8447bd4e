"""Amounts, dates and hours of a statement, which the source writes in another way or with another unit."""

from __future__ import annotations

import pytest

from ragq.rag.citing.amounts import write_plainly
from ragq.rag.citing.cite import cite
from tests.unit.test_answer import make_result

OTHER = make_result("Other things are told here, such as the weather of Sarn.", file_id="f2")
SHOP = "The shop opens at 9:00 and closes at 17:00."
PLAN = "The plan costs 49 euros a month."
MEETING = "The meeting is on 5 January 2026 at noon."
PHONE = "Call +49 30 1234-567 or write to info@example.org, or see https://example.org/help."


def is_unsupported(text: str, source: str) -> bool:
    statements = cite(text, [make_result(source), OTHER], "Tell me about it").statements
    return any(one.verdict == "unsupported" for one in statements)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("The shop is open from 9 am to 5 pm [1].", SHOP),
        ("It closes at 5 p.m. [1].", SHOP),
        ("Opening hours: 09:00–17:00 [1].", SHOP),
        ("Der Laden schließt um 17 Uhr.", "Der Laden schließt um 17:00 Uhr."),
        ("The plan costs €49 per month [1].", PLAN),
        ("The plan is 49 EUR monthly [1].", PLAN),
        ("Revenue was $3.2 billion [1].", "Revenue rose to 3.2 billion dollars in 2024."),
        ("The meeting is on January 5, 2026 [1].", MEETING),
        ("The meeting is on 2026-01-05 [1].", MEETING),
        ("It takes place on 05.01.2026 at 12:00 [1].", MEETING),
        ("Call +49 30 1234567 [1].", PHONE),
        ("Write to info@example.org, or see https://example.org/help [1].", PHONE),
        ("See http://www.example.org/help/ [1].", PHONE),
        ("Files of up to 512MB are allowed [1].", "The file may be up to 512 megabytes."),
        ("More than 1234567 ships pass [1].", "Ships pass: 1,234,567 of them."),
    ],
)
def test_an_amount_may_be_written_in_another_way(text: str, source: str) -> None:
    assert not is_unsupported(text, source)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("The shop closes at 6 pm [1].", SHOP),
        ("The shop closes at 5 am [1].", SHOP),
        ("The plan costs $49 a month [1].", PLAN),
        ("The plan costs €59 a month [1].", PLAN),
        ("The meeting is on February 5, 2026 [1].", MEETING),
        ("The meeting is on 2026-01-06 [1].", MEETING),
        ("Call +49 30 1234568 [1].", PHONE),
        ("Write to info@example.com [1].", PHONE),
        ("See https://example.org/helped [1].", PHONE),
        ("See https://example.org/h [1].", PHONE),
        ("Write to fo@example.org [1].", PHONE),
        ("The tower is 324 feet tall [1].", "The tower is 324 metres tall and was finished in 1889."),
        ("Refunds take 14 weeks [1].", "Refunds take 14 days."),
    ],
)
def test_another_amount_unit_or_address_is_unsupported(text: str, source: str) -> None:
    assert is_unsupported(text, source)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("May 5, 2020", "5 May 2020"),
        ("Dec. 3rd", "3 Dec"),
        ("it may 3 times", "it may 3 times"),
        ("12 am, 12 p.m. and 1:30 PM", "0:00, 12:00 and 13:30"),
        ("9 a.m. Monday, 9am, 15 am", "9:00 Monday, 9:00, 15 am"),
        ("Gleis 12 am Bahnhof", "Gleis 12 am Bahnhof"),
        ("17.30 Uhr", "17:30 Uhr"),
        ("€1.2bn, US$5 and 7 GBP", "1.2bn euro, 5 dollar and 7 pound"),
        ("EUR or $", "EUR or $"),
        ("3 m", "3 m"),
    ],
)
def test_amounts_are_written_in_one_way(text: str, written: str) -> None:
    assert write_plainly(text) == written
