"""What workers run. This package is also the configuration of a bare `rq worker` (see `ragq env`)."""

from ragq.models import QueueName

QUEUES = [str(queue) for queue in QueueName]
"""What a bare `rq worker` serves; RQ reads it because `RQ_CONFIG` names this package."""
