"""A batch whose workers are killed: each input line gets exactly one output line."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp

from benchmarks.drill.audit import Report
from benchmarks.drill.kills import WORKERS, Killer
from benchmarks.drill.load import HttpClient
from benchmarks.drill.stage import Stage

ENDED = ("completed", "failed", "expired", "cancelled")
END_SECONDS = 300

Say = Callable[[str], None]


async def batches(stage: Stage, client: HttpClient, say: Say, *, lines: int = 1000, kills: int = 20) -> Report:
    """Send a batch, kill workers while it runs, and count the output lines."""
    report, started = Report("batches"), time.monotonic()
    await stage.start_workers(WORKERS)
    batch = await _send(client, lines)
    killer = Killer(stage, kills=kills, valkey_kills=0)
    killing = asyncio.create_task(killer.run())
    while batch["status"] not in ENDED and time.monotonic() - started < END_SECONDS:
        await asyncio.sleep(0.5)
        answer = await client.call("GET", f"/v1/batches/{batch['id']}")
        batch = answer.body if answer.status == 200 else batch
        say(f"{killer.done} kills, {batch['status']}, {batch['request_counts']}")
    seconds = time.monotonic() - started
    killed_meanwhile = killer.done
    await killing
    text = await client.text(f"/v1/files/{batch['output_file_id']}/content") if batch["output_file_id"] else ""
    output = [json.loads(line) for line in text.splitlines()]
    names = Counter(line["custom_id"] for line in output)
    runs = Counter(run.tag for run in stage.runs())
    report.figures |= {
        "lines": lines,
        "worker_kills": killed_meanwhile,
        "status": batch["status"],
        "request_counts": batch["request_counts"],
        "output_lines": len(output),
        "lost": lines - len(names),
        "runs": sum(runs.values()),
        "lines_run_twice_or_more": sum(count > 1 for count in runs.values()),
        "batch_seconds": round(seconds, 1),
    }
    report.checks |= {
        "the batch completed": batch["status"] == "completed",
        "every line has exactly one line of output": names == Counter(f"line{number}" for number in range(lines)),
        "every line was answered": batch["request_counts"] == {"total": lines, "completed": lines, "failed": 0},
        f"{kills} workers were killed while it ran": killed_meanwhile == kills,
    }
    return report


async def _send(client: HttpClient, lines: int) -> dict[str, Any]:
    requests = (
        {
            "custom_id": f"line{number}",
            "method": "POST",
            "url": "/v1/responses",
            "body": {"input": f"How tall is it? [[fake job=line{number}]]", "vector_store_ids": []},
        }
        for number in range(lines)
    )
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", "\n".join(map(json.dumps, requests)).encode(), filename="questions.jsonl")
    file = await client.call("POST", "/v1/files", data=form)
    assert file.status == 200, file
    body = {"input_file_id": file.body["id"], "endpoint": "/v1/responses", "completion_window": "24h"}
    batch = await client.call("POST", "/v1/batches", json=body)
    assert batch.status == 200, batch
    return dict(batch.body)
