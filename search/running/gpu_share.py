"""How many trials share a GPU: the largest one is tried on the real devices."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import ray
import torch

from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.records import Cause
from search.paths import CHECKPOINT_FILE
from search.provenance import describe_environment
from search.running.device_errors import cause_of
from search.running.resources import largest, suggestions
from search.terminal import Screen
from vaegan_core.config.trial import TrialConfig
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import Evaluation
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.training.resolve import at_full_cost, resolve
from vaegan_core.training.trainer import Trainer

MARGIN = 0.1
"""Share of the GPU's memory that is left free."""
MOST_PER_GPU = 16
LATE_SECONDS = 120.0
"""How long the other GPUs have once one was measured; another job may hold them."""


@dataclass(frozen=True)
class Memory:
    """What the largest trial takes on one GPU, in bytes."""

    peak: int
    """Its peak, including what CUDA itself takes."""
    total: int
    """The GPU's memory, without what other programs take of it."""
    gpu: str = "a GPU"
    """Its name and host."""


def with_gpu_share(
    sweep: Sweep, frame_set: FrameSet, features: FrameFeatures, journal: Journal, screen: Screen
) -> Sweep:
    """The sweep with `resources.gpu: auto` replaced by a number: 0 where Ray has no GPU, else what was measured, now or
    when the sweep last ran on such GPUs.

    `frame_set` is in memory.
    """
    if sweep.config.resources.gpu != "auto":
        return sweep
    share, available = 0.0, ray.cluster_resources()
    if gpus := int(available.get("GPU", 0)):
        kinds = sorted(key for key in available if key.startswith("accelerator_type:"))
        known = json.loads(journal.meta(Meta.GPU_SHARE, "null"))
        if not isinstance(known, dict) or known["kinds"] != kinds:
            known = {"share": _measured_share(sweep, frame_set, features, gpus, screen), "kinds": kinds}
            journal.set_meta(Meta.GPU_SHARE, json.dumps(known))
        share = known["share"]
    resources = sweep.config.resources.model_copy(update={"gpu": share})
    return replace(sweep, config=sweep.config.model_copy(update={"resources": resources}))


def _measured_share(sweep: Sweep, frame_set: FrameSet, features: FrameFeatures, gpus: int, screen: Screen) -> float:
    with screen.stage("Measuring the memory of the largest trial on every GPU"):
        config = largest([*suggestions(sweep)], frame_set)
        measured = measure(config, frame_set, features, gpus)
    count = min(map(trials_per_gpu, measured))
    screen.say(share_in_words(measured))
    return 1.0 / count


def measure(config: TrialConfig, frame_set: FrameSet, features: FrameFeatures, gpus: int) -> list[Memory]:
    """What `config` takes on each of Ray's GPUs, all measured at the same time; at least one, whatever others do."""
    task = ray.remote(num_gpus=1, num_cpus=1, max_calls=1)(peak_memory)
    asked = [task.remote(config, frame_set, features) for _ in range(gpus)]
    ray.wait(asked)
    answered, late = ray.wait(asked, num_returns=len(asked), timeout=LATE_SECONDS)
    for answer in late:
        ray.cancel(answer, force=True)
    measured: list[Memory] = ray.get(answered)
    return measured


def share_in_words(measured: Iterable[Memory]) -> str:
    """How many trials share a GPU, and which GPU decided that where they differ."""
    least = min(measured, key=trials_per_gpu)
    most = max(measured, key=trials_per_gpu)
    words = f"The largest trial takes {least.peak / 1e9:.2f} of {least.total / 1e9:.1f} GB on {least.gpu}"
    if trials_per_gpu(most) == trials_per_gpu(least):
        return f"{words}: {trials_per_gpu(least)} share one."
    return (
        f"{words}, so {trials_per_gpu(least)} share each GPU, also {most.gpu}, which has room for "
        f"{trials_per_gpu(most)}: a sweep of its own there would use it better."
    )


def trials_per_gpu(memory: Memory) -> int:
    """Number of trials of that peak that fit on one GPU with a margin, at least one."""
    return max(1, min(MOST_PER_GPU, int(memory.total * (1 - MARGIN) / memory.peak)))


def peak_memory(config: TrialConfig, frame_set: FrameSet, features: FrameFeatures) -> Memory:
    """Trains twice on this process's GPU, as a worker does one trial after another."""
    others = _used_by_others()
    total = torch.cuda.mem_get_info()[1] - others
    here = describe_environment(resolve(config))
    gpu = f"{here['device']} on {here['host']}"
    try:
        for _ in range(2):
            train_at_worst(config, frame_set, features)
    except Exception as error:
        if cause_of(error) != Cause.OUT_OF_MEMORY:
            raise
        return Memory(total, total, gpu)
    free = torch.cuda.mem_get_info()[0]
    outside = total - free - torch.cuda.memory_reserved()
    return Memory(torch.cuda.max_memory_reserved() + max(0, outside), total, gpu)


def _used_by_others() -> int:
    """Bytes of this GPU that are taken before this process uses it; 0 where the driver does not tell."""
    try:
        return torch.cuda.device_memory_used(0)
    except Exception:  # MIG parts and old drivers have their own ways to refuse
        return 0


def train_at_worst(config: TrialConfig, frame_set: FrameSet, features: FrameFeatures) -> Evaluation:
    """Trains two steps with all that a step, the last evaluation and a checkpoint ever take: every loss term, the
    gradient norms of a curve point, the final metrics, image grids. Returns that evaluation."""
    resolved = resolve(config)
    train = resolved.train.model_copy(update={"steps": 2, "log_every": 1})
    evaluate = resolved.evaluate.model_copy(update={"every": 2, "also_at": ()})
    short = resolved.model_copy(update={"train": train, "evaluate": evaluate})
    evaluations: list[Evaluation] = []
    with TemporaryDirectory() as directory:
        trainer = Trainer(at_full_cost(short), frame_set, features)
        trainer.run(evaluations.append, checkpoint=Path(directory) / CHECKPOINT_FILE)
    torch.cuda.empty_cache()
    return evaluations[-1]
