"""A conversation whose processes are killed: each answered turn is in it once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.servers import FakeLlm, Ragq, wait_until


@pytest.mark.timeout(240)
def test_each_turn_is_in_its_conversation_once_though_everything_is_killed(tmp_path: Path) -> None:
    llm = FakeLlm(tmp_path, latency=1)
    service = Ragq(tmp_path / "data", RAGQ_LLM_BASE_URL=llm.base_url, RAGQ_LLM_MODEL="fake").start()
    try:
        conversation = _post(service, "/v1/conversations", {})["id"]
        asked = []
        for round_ in range(4):
            question = {
                "input": f"Question {round_}?",
                "conversation": conversation,
                "background": True,
                "vector_store_ids": [],
            }
            asked.append(_post(service, "/v1/responses", question)["id"])
            if round_ % 2:  # kill it when the answer is there and may not be archived
                _wait(service, asked[-1])
            service.kill()
            service.start()
            if round_ == 2:
                _wait(service, asked[-1])
                assert len(_items(service, conversation)) == 6  # read before it is archived, and archived afterwards
            _wait(service, asked[-1])
        said = [item["content"][0]["text"] for item in _items(service, conversation) if item["role"] == "user"]
        assert said == [f"Question {round_}?" for round_ in range(4)]
        ids = [item["id"] for item in _items(service, conversation)]
        assert len(ids) == len(set(ids)) == 8
    finally:
        service.end()
        llm.stop()


def _post(service: Ragq, path: str, body: Any) -> Any:
    answer = httpx2.post(service.url + path, json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _wait(service: Ragq, response_id: str) -> None:
    def is_completed() -> bool:
        return bool(httpx2.get(f"{service.url}/v1/responses/{response_id}").json()["status"] == "completed")

    wait_until(is_completed, seconds=40)


def _items(service: Ragq, conversation_id: str) -> Any:
    return httpx2.get(f"{service.url}/v1/conversations/{conversation_id}/items?order=asc").json()["data"]
