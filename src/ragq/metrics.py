"""Prometheus metrics of a process; the API serves them at `/metrics`, a worker on a port of its own.

Names follow Prometheus's conventions: base units in the name, `_total` for counters.
"""

from __future__ import annotations

import sys
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from ragq.models import JobFunction, QueueName

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

# Jobs
REFUSED = Counter("ragq_refused", "Jobs that admission control refused with 429.", ["queue"])
ATTEMPTS = Counter("ragq_attempts", "Claims, which are started runs of jobs.", ["queue"])
ENDED = Counter("ragq_jobs_ended", "Ended jobs; code is 'finished' or the error code.", ["function", "code"])
WAIT = Histogram("ragq_job_wait_seconds", "From enqueue to the claim.", ["queue"], buckets=_SECONDS)
RUN = Histogram("ragq_job_run_seconds", "From the claim to the end of the run.", ["function"], buckets=_SECONDS)
STAGE = Histogram("ragq_stage_seconds", "Time of each stage of a job.", ["stage"], buckets=_SECONDS)
IN_FLIGHT = Gauge("ragq_jobs_in_flight", "Jobs in flight in this process.", ["queue"])

# Failures and recovery
RETRIES = Counter("ragq_retries", "Runs that ended in a transient error and will be retried, by error code.", ["code"])
PUT_BACK = Counter("ragq_jobs_put_back", "Jobs with an expired lease that this process put back.")
LATE = Counter("ragq_jobs_late", "Queued jobs that this process failed because their deadline passed.")
LEASES_LOST = Counter("ragq_leases_lost", "Jobs in flight here that another attempt took over or that were cancelled.")
COMMITS_REFUSED = Counter(
    "ragq_commits_refused", "Late results that were refused because another attempt owned the job."
)
ARCHIVED = Counter("ragq_jobs_archived", "Ended jobs that this process archived.")
SWEPT = Counter("ragq_documents_swept", "Documents without a running job that this process queued again or failed.")

# Webhooks
WEBHOOKS = Counter(
    "ragq_webhook_attempts", "Webhook attempts by outcome: delivered, retried, failed or disabled.", ["outcome"]
)

# Model endpoints
LLM_CALLS = Counter("ragq_llm_calls", "LLM calls; code is 'ok' or the error code.", ["code"])
STATEMENTS = Counter(
    "ragq_statements", "Statements of LLM answers by verdict: supported, unsupported or uncited.", ["verdict"]
)
FEEDBACK = Counter("ragq_feedback", "Ratings of answers: up or down.", ["rating"])
JUDGEMENTS = Counter(
    "ragq_judgements",
    "Calls of the LLM as a judge of statements; code is 'ok' or why the check's verdicts stay.",
    ["code"],
)
JUDGED_TOKENS = Counter("ragq_judge_tokens", "Tokens of these calls: input or output.", ["kind"])
LLM_BREAKER = Gauge("ragq_llm_breaker_open", "Circuit breaker of the LLM: 0 closed, 0.5 probing, 1 open.")
EMBEDDING_CALLS = Counter(
    "ragq_embedding_calls", "Calls of the embedding endpoint; code is 'ok' or the error code.", ["code"]
)
EMBEDDING_BREAKER = Gauge(
    "ragq_embedding_breaker_open", "Circuit breaker of the embedding endpoint: 0 closed, 0.5 probing, 1 open."
)
RERANK_CALLS = Counter(
    "ragq_rerank_calls",
    "Calls of the reranker; code is 'ok' or the error code, after which a search keeps its order.",
    ["code"],
)
RERANK_BREAKER = Gauge("ragq_rerank_breaker_open", "Circuit breaker of the reranker: 0 closed, 0.5 probing, 1 open.")

# This process. Resident memory includes what the allocator has not returned; a leak shows in the blocks in use.
BLOCKS = Gauge("ragq_python_blocks", "Memory blocks in use by Python objects.")
BLOCKS.set_function(sys.getallocatedblocks)

# The API
REQUESTS = Counter("ragq_http_requests", "HTTP requests by route and status.", ["method", "route", "status"])
CONNECTIONS = Gauge("ragq_http_connections", "Open HTTP connections of this process.")
CONNECTIONS_CLOSED = Counter(
    "ragq_http_connections_closed", "HTTP connections closed because they exceeded a limit.", ["reason"]
)

# The queue, read by the API at each scrape
JOBS = Gauge("ragq_queue_jobs", "Jobs of a list by state.", ["list", "state"])
OLDEST = Gauge("ragq_queue_oldest_seconds", "How long the first job of a list has waited.", ["list"])
WORKERS = Gauge("ragq_workers", "Live workers of a queue.", ["queue"])

# The disk of the data folder, read by the API at each scrape
DISK_FREE = Gauge("ragq_disk_free_bytes", "Free space on the disk of the data folder.", ["folder"])
DISK_SIZE = Gauge("ragq_disk_size_bytes", "Size of that disk.", ["folder"])

# Alerts and the dashboard ask how much these have grown. A series that begins with its first event has not grown by it, so each begins at 0.
for _outcome in ("delivered", "retried", "failed", "disabled"):
    WEBHOOKS.labels(_outcome)
for _queue in QueueName:
    REFUSED.labels(_queue)
for _function in JobFunction:
    ENDED.labels(_function.rpartition(".")[2], "finished")
for _rating in ("up", "down"):
    FEEDBACK.labels(_rating)
