"""Commands that messages advise, as their reader types them: those of a job are typed on another machine."""

from __future__ import annotations

import os

from search.names import JOB_OPTIONS


def resume_command(name: str, *options: str) -> str:
    """What continues a sweep."""
    return " ".join(("vaegan resume", name, *options)) + os.environ.get(JOB_OPTIONS, "")


def sync_command(name: str) -> str:
    """What sends MLflow the rest; on a cluster, a driver that continues the sweep does."""
    return resume_command(name) if JOB_OPTIONS in os.environ else f"vaegan sync {name}"
