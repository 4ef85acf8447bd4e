"""Put questions into the queue and wait for their answers; prints JSON. The questions: JSON on standard input."""

import json
import sys
import time

from client.rq_client import queue

questions = json.load(sys.stdin)
jobs = [queue.enqueue("queues.worker.process_query", question) for question in questions]
while any(job.get_status(refresh=True) not in ("finished", "failed") for job in jobs):
    time.sleep(0.1)
for job in jobs:
    job.refresh()
seconds = max(job.ended_at for job in jobs) - min(job.enqueued_at for job in jobs)
answers = [str(job.return_value()) for job in jobs if job.get_status() == "finished"]
print(json.dumps({"seconds": seconds.total_seconds(), "answers": answers}))
