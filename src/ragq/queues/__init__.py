"""What workers run. This package is also the configuration of a bare `rq worker` (see `ragq env`)."""

import os

from ragq.client.replication.address import rq_sentinels
from ragq.models import QueueName

QUEUES = [str(queue) for queue in QueueName]
"""The queues of a bare `rq worker`; RQ reads this because `RQ_CONFIG` names the package."""

SENTINEL = rq_sentinels(os.environ.get("RAGQ_VALKEY_URL", ""))
"""The Sentinels of a bare `rq worker`; RQ reads this if `RQ_REDIS_URL` is not set, which cannot name them."""
