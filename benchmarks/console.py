"""How fast is the console with 100,000 finished and 5,000 queued jobs, and what does an open view ask of the servers?

It fills a `ragq up`, opens each view in Chromium and does each action (`console_actions.py`). A view's time is from the click on its
link to its content. `--finished 2000 --queued 100 --watch 4` is a short form.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import redis
from playwright.sync_api import Page, Playwright, expect, sync_playwright

from benchmarks.console_actions import OPENINGS, Tour, tour_console
from benchmarks.harness import Report, arguments
from ragq.tasks import run_all
from tests.browser.conftest import BROWSERS
from tests.programs import find_program
from tests.servers import Ragq

TARGET_MS = 300
AT_ONCE = 32
FILL = """
    INSERT INTO jobs (id, tenant_id, key_id, queue, lane, kind, state, created_at, started_at, ended_at, attempts, error_code,
                      model, input_tokens, output_tokens, waited_ms, ran_ms, worker, excerpt, words)
    SELECT 'resp_' || md5(n::text), CASE n %% 10 WHEN 0 THEN 'acme' ELSE 'default' END, 'key_' || n %% 50,
           CASE WHEN n %% 20 = 0 THEN 'documents' ELSE 'queries' END, '', 'question',
           CASE WHEN n %% 100 = 0 THEN 'failed' WHEN n %% 100 = 1 THEN 'canceled' ELSE 'finished' END, at - interval '2 s',
           at - interval '1 s', at, 1, CASE WHEN n %% 100 = 0 THEN 'llm_' || n %% 7 END, 'ragq', 900, 100, 1000 + n %% 300,
           1000 + n %% 700, 'worker', text, to_tsvector('simple', text)
    FROM generate_series(1, %(finished)s) AS n, LATERAL (SELECT now() - n * interval '0.5 s' AS at) a,
         LATERAL (SELECT 'How tall is the lighthouse number ' || n || ' of the harbour of ' || md5((n %% 997)::text) || '?' AS text) t"""
# A view's address, and what shows that it is there.
VIEWS = {
    "queues": ("queues", "article .charts"),
    "workers": ("workers", "tbody tr"),
    "jobs": ("jobs", "tbody tr"),
    "jobs, queued": ("jobs?state=queued", "tbody tr"),
    "jobs, failed": ("jobs?state=failed", "tbody tr"),
    "jobs, a rare word": ("jobs?text=number%204711", "tbody tr, .none"),
    "jobs, a common word": ("jobs?state=finished&text=harbour", "tbody tr"),
    "jobs, of a tenant": ("jobs?state=finished&tenant=acme", "tbody tr"),
    "jobs, an error code": ("jobs?error_code=llm_3", "tbody tr"),
    "a job": ("job/", ".steps li"),
    "documents": ("documents", "#view .none, tbody tr"),
    "tenants": ("tenants", "tbody tr"),
    "keys": ("keys", "#view .none, tbody tr"),
    "usage": ("usage", ".charts"),
    "audit log": ("audit", "tbody tr"),
}


def fill(service: Ragq, finished: int, queued: int) -> None:
    """Write finished jobs, and queue questions that no worker takes."""
    with httpx2.Client(base_url=service.url) as client:
        client.post("/v1/admin/tenants", json={"id": "acme"}).raise_for_status()
        client.post("/v1/admin/queues/queries/pause").raise_for_status()
    with psycopg.connect(service.services["database_url"], autocommit=True) as connection:
        connection.execute(FILL, {"finished": finished})
        connection.execute("VACUUM ANALYZE jobs")
    asyncio.run(_queue(service.url, queued))


async def _queue(url: str, queued: int) -> None:
    async with httpx2.AsyncClient(base_url=url, timeout=120) as client:

        async def ask(number: int) -> None:
            body = {"input": f"How long is pier {number}?", "background": True}
            (await client.post("/v1/responses", json=body)).raise_for_status()

        await run_all((ask(number) for number in range(queued)), at_once=AT_ONCE)


def measure_views(page: Page, job_id: str) -> dict[str, float]:
    """Open each view several times; returns the medians in ms."""
    times: dict[str, float] = {}
    for name, (address, sign) in VIEWS.items():
        took = []
        for _ in range(OPENINGS):
            _go(page, "keys?tenant=none" if name != "keys" else "workers", "#view .none, tbody tr")
            took.append(_go(page, address + (job_id if name == "a job" else ""), sign))
        times[name] = round(statistics.median(took), 1)
    return times


def _go(page: Page, address: str, sign: str) -> float:
    """Go to a view as a link does; returns the ms until its content is there."""
    return float(
        page.evaluate(
            """async ([address, sign]) => {
                const before = document.querySelector('#view > section');
                const started = performance.now();
                location.hash = address;
                for (;;) {
                    const now = document.querySelector('#view > section');
                    if (now !== before && now?.querySelector(sign.replaceAll('#view ', ''))) return performance.now() - started;
                    await new Promise(requestAnimationFrame);
                    if (performance.now() - started > 10000) throw new Error(`${address} does not open`);
                }
            }""",
            [address, sign],
        )
    )


def count_load(service: Ragq) -> dict[str, int]:
    """What PostgreSQL and Valkey have been asked so far."""
    with psycopg.connect(service.services["database_url"], autocommit=True) as connection:
        connection.execute("SELECT pg_stat_clear_snapshot(), pg_stat_force_next_flush()")
        row = connection.execute("SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database").fetchone()
    with redis.Redis.from_url(service.services["valkey_url"]) as valkey:
        commands: Any = valkey.info("stats")
    return {"postgresql": int(row[0]) if row else 0, "valkey": int(commands["total_commands_processed"])}


def measure_load(service: Ragq, page: Page, seconds: float) -> dict[str, dict[str, int]]:
    """Count transactions and commands a minute while nothing and while a view is open, seen for some seconds each."""
    rates = {}
    for name in ("nothing", "queues", "workers", "jobs", "jobs, queued"):
        if name == "nothing":
            page.evaluate("location.hash = 'keys'")  # which does not ask by itself
        else:
            _go(page, VIEWS[name][0], VIEWS[name][1])
        before, started = count_load(service), time.monotonic()
        page.wait_for_timeout(seconds * 1000)
        after, minutes = count_load(service), (time.monotonic() - started) / 60
        rates[name] = {server: round((after[server] - before[server]) / minutes) for server in before}
    return rates


def measure(service: Ragq, playwright: Playwright, seconds: float) -> dict[str, Any]:
    """Open the console, and do everything there; returns the figures."""
    path = find_program(BROWSERS, install="on Debian: apt-get install chromium")
    browser = playwright.chromium.launch(executable_path=path)
    page = browser.new_page()
    page.goto(f"{service.url}/console")
    expect(page.get_by_role("article")).to_have_count(2)
    found = httpx2.get(f"{service.url}/v1/admin/jobs?state=queued").json()["data"]
    views, load = measure_views(page, found[0]["id"]), measure_load(service, page, seconds)
    tour = tour_console(page, service)
    browser.close()
    return {"views_ms": views, "asked_a_minute": load, **note_tour(tour)}


def note_tour(tour: Tour) -> dict[str, Any]:
    return {
        "opened_ms": {name: round(statistics.median(took), 1) for name, took in tour.views.items()},
        "actions_ms": tour.actions,
        "all_that_match": tour.said,
        "console_errors": tour.faults,
        "requests_to_other_hosts": tour.strangers,
    }


def main() -> int:
    """Run the benchmark; returns the exit code, 1 if a target was missed."""
    parser = arguments("console", __doc__)
    parser.add_argument("--finished", type=int, default=100_000)
    parser.add_argument("--queued", type=int, default=5_000)
    parser.add_argument("--watch", type=float, default=20, help="seconds for which the load of a view is counted")
    options = parser.parse_args()
    report = Report("console")
    with tempfile.TemporaryDirectory(prefix="ragq-console-") as folder:
        service = Ragq(Path(folder) / "data").start()
        try:
            fill(service, options.finished, options.queued)
            with report.watching(), sync_playwright() as playwright:
                figures = measure(service, playwright, options.watch)
        finally:
            service.stop()
    report.figures = {"finished": options.finished, "queued": options.queued, **figures}
    slowest = max(*figures["views_ms"].values(), *figures["opened_ms"].values())
    report.checks = {
        f"each view in {TARGET_MS} ms": slowest <= TARGET_MS,
        "no error on the browser's console": not figures["console_errors"],
        "no request to another host": not figures["requests_to_other_hosts"],
    }
    return report.publish(options.out)


if __name__ == "__main__":
    sys.exit(main())
