"""What an autoscaler sees: tasks that want what a trial wants, and end at once when they have it.

They end with their driver, whatever ends it; a request by `ray.autoscaler.sdk` would hold nodes for ever.
"""

from __future__ import annotations

import ray

from search.config.sweep_config import ResourcesConfig


def ask_for(resources: ResourcesConfig, trials: int) -> list[ray.ObjectRef]:
    """Asks for room for this many trials; each answer is there once there was room for it."""
    gpu = 1.0 if resources.gpu == "auto" else resources.gpu
    task = ray.remote(num_cpus=resources.cpu, num_gpus=gpu, max_retries=0)(nothing)
    return [task.remote() for _ in range(trials)]


def unanswered(asked: list[ray.ObjectRef]) -> list[ray.ObjectRef]:
    """Those for which there was no room yet."""
    return ray.wait(asked, num_returns=len(asked), timeout=0)[1] if asked else []


def nothing() -> None:
    """Runs where there is room for a trial."""
