"""Prometheus: the metrics of this process and the queue, and the addresses of the workers' metrics."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from typing_extensions import TypedDict

from ragq import metrics
from ragq.http.input import CheckedRoute
from ragq.models import QueueName
from ragq.routes.context import ContextDependency, Operator

router = APIRouter(prefix="/metrics", route_class=CheckedRoute)


class Targets(TypedDict):
    """Addresses of metrics, in the form of Prometheus's HTTP service discovery."""

    targets: list[str]
    labels: dict[str, str]


@router.get("", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def show_metrics(context: ContextDependency, _caller: Operator) -> Response:
    """Show the metrics of this process and the state of the queue."""
    status = await context.queue.monitor.describe()
    for gauge in (metrics.JOBS, metrics.OLDEST):
        gauge.clear()
    for queue in status.queues:
        for state, count in (("queued", queue.queued), ("in_flight", queue.in_flight), ("scheduled", queue.scheduled)):
            metrics.JOBS.labels(queue.name, state).set(count)
        metrics.OLDEST.labels(queue.name).set(queue.oldest_seconds or 0)
    for name in QueueName:
        metrics.WORKERS.labels(name).set(sum(name in worker.queues for worker in status.workers))
    _measure_disk(context.settings.data_dir)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _measure_disk(folder: Path) -> None:
    with contextlib.suppress(OSError):  # with servers and blobs elsewhere, there need be no folder
        usage = shutil.disk_usage(folder)
        name = str(folder.resolve())
        metrics.DISK_FREE.labels(name).set(usage.free)
        metrics.DISK_SIZE.labels(name).set(usage.total)


@router.get("/targets")
async def list_targets(context: ContextDependency, _caller: Operator) -> list[Targets]:
    """List the metrics addresses of live workers, in the form of Prometheus's HTTP service discovery."""
    return [
        {"targets": [worker.metrics], "labels": {"worker": worker.name, "queues": ",".join(worker.queues)}}
        for worker in (await context.queue.monitor.describe()).workers
        if worker.metrics
    ]
