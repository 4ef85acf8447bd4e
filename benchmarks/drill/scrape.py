"""Read Prometheus metrics of the processes in a drill."""

from __future__ import annotations

from collections import defaultdict

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.drill.load import HttpClient
from benchmarks.drill.stage import Worker


async def scrape_api(client: HttpClient) -> dict[str, float]:
    """The API's samples, summed over their labels."""
    return _sum(await client.text("/metrics"))


async def scrape_worker(client: HttpClient, worker: Worker) -> dict[str, float]:
    """A live worker's samples, summed over their labels; its address comes from the API."""
    (started,) = worker.events("worker_started")
    targets = (await client.call("GET", "/metrics/targets")).body
    (address,) = [one["targets"][0] for one in targets if one["labels"]["worker"] == started["worker"]]
    return _sum(await client.text(f"http://{address}/metrics"))


def _sum(text: str) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] += sample.value
    return sums
