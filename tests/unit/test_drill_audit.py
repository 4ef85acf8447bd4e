"""The audit of the drills: what it counts, and that nothing passes because nothing was done."""

from __future__ import annotations

import pytest

from benchmarks.drill.audit import Report, audit
from benchmarks.drill.load import Account


def test_a_report_without_checks_has_not_passed() -> None:
    assert not Report("empty").passed


def test_a_drill_in_which_nothing_was_accepted_has_not_passed() -> None:
    report = Report("idle")
    audit(report, Account(), {}, [])
    assert report.failures() == ["jobs were accepted"]


@pytest.mark.parametrize(
    ("state", "results", "failure"),
    [
        ("finished", 1, None),
        ("waiting", 0, "no accepted job is lost"),
        ("gone", 0, "no accepted job is lost"),
        ("finished", 2, "no job has two visible results"),
        ("finished", 0, "every finished job has a visible result"),
    ],
)
def test_the_promise_is_checked_of_each_job(state: str, results: int, failure: str | None) -> None:
    report = Report("one")
    audit(report, Account({"tag": "id"}, {"tag": state}), {"id": results}, [])
    assert report.failures() == ([failure] if failure else [])
