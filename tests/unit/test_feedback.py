"""Feedback as it is shown."""

from __future__ import annotations

from datetime import UTC, datetime

from ragq.feedback.objects import render_rated
from ragq.models import JobStatus
from ragq.records import Failure, Job, Request
from ragq.storage.feedback import RatedAnswer


def test_feedback_on_an_answer_that_was_run_again_and_failed_is_shown_without_it() -> None:
    failure = Failure("llm_unavailable", "The LLM does not answer.")
    request = Request(input="How tall is it?")
    job = Job("resp_1", "default", JobStatus.FAILED, 1, 1.0, ended_at=2.0, request=request, error=failure)
    shown = render_rated(RatedAnswer("resp_1", "", datetime(2026, 1, 1, tzinfo=UTC), "down", "Too short.", ""), job)
    assert (shown["question"], shown["comment"]) == ("How tall is it?", "Too short.")
    assert (shown["answer"], shown["files"]) == ("", [])
