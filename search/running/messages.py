"""What driver and worker say to each other."""

from __future__ import annotations

# Keys of what a worker reports to Tune
EVENT = "event"
PAYLOAD = "payload"
RESOLVED = "resolved_config"
ENVIRONMENT = "environment"
FROM_STEP = "from_step"
ERROR = "error"
CAUSE = "cause"
# Kinds of event
STARTED = "started"
EVALUATION = "evaluation"
ENDED = "ended"
