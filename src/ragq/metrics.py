"""Prometheus metrics: every process counts here; the API shows them at `/metrics`, a worker on a port of its own.

Names follow Prometheus' conventions: base units in the name, `_total` for what only grows.
"""

from __future__ import annotations

import sys
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

# The road of a job
REFUSED = Counter("ragq_refused", "Jobs that admission control refused with 429.", ["queue"])
ATTEMPTS = Counter("ragq_attempts", "Claims: runs of jobs that began.", ["queue"])
ENDED = Counter("ragq_jobs_ended", "Jobs that ended; code is 'finished' or why they failed.", ["function", "code"])
WAIT = Histogram("ragq_job_wait_seconds", "From enqueue to the claim.", ["queue"], buckets=_SECONDS)
RUN = Histogram("ragq_job_run_seconds", "From the claim to the end of the run.", ["function"], buckets=_SECONDS)
STAGE = Histogram("ragq_stage_seconds", "Time of each stage of a job.", ["stage"], buckets=_SECONDS)
IN_FLIGHT = Gauge("ragq_jobs_in_flight", "Jobs this process runs now.", ["queue"])

# What goes wrong, and is put right
RETRIES = Counter("ragq_retries", "Runs that ended in a transient error and were put back, by its code.", ["code"])
PUT_BACK = Counter("ragq_jobs_put_back", "Jobs whose lease ran out and that this process put back.")
LATE = Counter("ragq_jobs_late", "Jobs whose deadline passed in the queue and that this process ended.")
LEASES_LOST = Counter("ragq_leases_lost", "Jobs in flight here that another attempt took over, or that were cancelled.")
COMMITS_REFUSED = Counter("ragq_commits_refused", "Late results that were refused: another attempt owned the job.")
ARCHIVED = Counter("ragq_jobs_archived", "Ended jobs this process wrote to the archive.")
SWEPT = Counter("ragq_documents_swept", "Documents whose job was missing or had ended, put right by this process.")

# Webhooks
WEBHOOKS = Counter("ragq_webhook_attempts", "Webhooks sent: delivered, retried, failed or disabled.", ["outcome"])

# The served models
LLM_CALLS = Counter("ragq_llm_calls", "LLM calls; code is 'ok' or why they failed.", ["code"])
LLM_BREAKER = Gauge("ragq_llm_breaker_open", "Circuit breaker of the LLM: 0 closed, 0.5 probing, 1 open.")
EMBEDDING_CALLS = Counter(
    "ragq_embedding_calls", "Calls of the embedding endpoint; code is 'ok' or why they failed.", ["code"]
)
EMBEDDING_BREAKER = Gauge("ragq_embedding_breaker_open", "Circuit breaker of the embedding endpoint, likewise.")

# This process. Its resident memory keeps what the allocator has not given back; what is in use tells of a leak.
BLOCKS = Gauge("ragq_python_blocks", "Blocks of memory that Python's objects take now.")
BLOCKS.set_function(sys.getallocatedblocks)

# The API
REQUESTS = Counter("ragq_http_requests", "HTTP requests by route and status.", ["method", "route", "status"])
CONNECTIONS = Gauge("ragq_http_connections", "Open HTTP connections of this process.")
CONNECTIONS_CLOSED = Counter(
    "ragq_http_connections_closed", "HTTP connections closed for breaking a limit.", ["reason"]
)

# The queue, read by the API when it is asked
JOBS = Gauge("ragq_queue_jobs", "Jobs of a list by state.", ["list", "state"])
OLDEST = Gauge("ragq_queue_oldest_seconds", "How long the first job of a list waits.", ["list"])
WORKERS = Gauge("ragq_workers", "Live workers of a queue.", ["queue"])
