"""How many trials share a GPU: the largest one is tried on the real device."""

from __future__ import annotations

from dataclasses import dataclass, replace

import ray
import torch

from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.running.resources import largest, suggestions
from search.terminal import Screen
from vaegan_core.config import TrialConfig
from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.training.resolve import at_full_cost, resolve
from vaegan_core.training.trainer import Trainer

MARGIN = 0.1
"""Share of the GPU's memory that is left free."""
MOST_PER_GPU = 16


@dataclass(frozen=True)
class Memory:
    """In bytes."""

    peak: int
    """One trial's peak, including what CUDA itself takes."""
    total: int


def with_gpu_share(
    sweep: Sweep, frame_set: FrameSet, features: FrameFeatures, journal: Journal, screen: Screen
) -> Sweep:
    """The sweep with `resources.gpu: auto` replaced by a number: 0 where Ray has no GPU, else what was measured.

    `frame_set` is in memory.
    """
    if sweep.config.resources.gpu != "auto":
        return sweep
    share = 0.0
    if ray.cluster_resources().get("GPU", 0):
        known = journal.meta(Meta.GPU_SHARE, "")
        share = float(known) if known else _measured_share(sweep, frame_set, features, screen)
        journal.set_meta(Meta.GPU_SHARE, str(share))
    resources = sweep.config.resources.model_copy(update={"gpu": share})
    return replace(sweep, config=sweep.config.model_copy(update={"resources": resources}))


def _measured_share(sweep: Sweep, frame_set: FrameSet, features: FrameFeatures, screen: Screen) -> float:
    task = ray.remote(num_gpus=1, num_cpus=1, max_calls=1)(peak_memory)
    with screen.stage("Measuring the memory of the largest trial on a GPU"):
        config = largest([*suggestions(sweep)], frame_set)
        memory: Memory = ray.get(task.remote(config, frame_set, features))
    count = trials_per_gpu(memory)
    screen.say(
        f"The largest trial takes {memory.peak / 1e9:.2f} of a GPU's {memory.total / 1e9:.1f} GB: {count} share one."
    )
    return 1.0 / count


def trials_per_gpu(memory: Memory) -> int:
    """Number of trials of that peak that fit on one GPU with a margin, at least one."""
    return max(1, min(MOST_PER_GPU, int(memory.total * (1 - MARGIN) / memory.peak)))


def peak_memory(config: TrialConfig, frame_set: FrameSet, features: FrameFeatures) -> Memory:
    """Trains a few steps and evaluates once on this process's GPU."""
    trainer = Trainer(at_full_cost(resolve(config)), frame_set, features)
    with trainer.runtime():
        for _ in range(3):
            trainer.train_step()
        trainer.evaluate()
    free, total = torch.cuda.mem_get_info()
    outside = total - free - torch.cuda.memory_reserved()
    return Memory(torch.cuda.max_memory_reserved() + outside, total)
