"""What workers run. This package is also the configuration of a bare `rq worker` (see `ragq env`)."""

from ragq.models import QueueName

QUEUES = [str(queue) for queue in QueueName]
"""The queues of a bare `rq worker`; RQ reads this because `RQ_CONFIG` names the package."""
