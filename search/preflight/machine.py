"""What a sweep asks of this machine that it does not have, and what in its numbers cannot be meant."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from search.config.sweep import Sweep
from search.running.resources import estimated_bytes, suggestions
from search.terminal import counted
from vaegan_core.config.trial import TrialConfig
from vaegan_core.data.frames import FrameSet
from vaegan_core.hardware import memory_bytes
from vaegan_core.model.sizes import downsampled

WORTH_A_LOOK = 0.1
"""Share of the memory above which a rough estimate is made an exact one, for which PyTorch is imported."""


def check_machine(sweep: Sweep) -> None:
    """Raises ValueError with everything that one trial takes and this machine does not have."""
    beyond = list(beyond_this_machine(sweep, FrameSet.open(sweep.config.base["frames"])))
    if beyond:
        lines = "\n  ".join(beyond)
        raise ValueError(f"{sweep.config.name} cannot run on this machine; change it, or give a --cluster:\n  {lines}")


def beyond_this_machine(sweep: Sweep, frame_set: FrameSet) -> Iterator[str]:
    """What one trial takes, by key, and what this machine has."""
    resources = sweep.config.resources
    cores, memory = os.cpu_count() or 1, memory_bytes()
    if resources.cpu > cores:
        yield f"resources.cpu: one trial takes {resources.cpu} CPU cores, but this machine has {cores}"
    wanted = 0.0 if resources.gpu == "auto" else resources.gpu
    on_gpu = sweep.config.base["train"].get("device") == "cuda"
    if wanted or on_gpu:
        import torch

        gpus = torch.cuda.device_count()
        if math.ceil(wanted) > gpus:
            yield f"resources.gpu: one trial takes {wanted:g}, but this machine has {counted(gpus, 'GPU')}"
        elif not gpus:
            yield "base.train.device: a trial takes cuda, but this machine has 0 GPUs"
    largest = max(suggestions(sweep), key=lambda config: _roughly(config, frame_set))
    if _roughly(largest, frame_set) < WORTH_A_LOOK * memory:
        return
    needed = estimated_bytes(largest, frame_set)
    if needed > memory:
        model = largest.model
        sizes = f"latent_dim {model.latent_dim}, width {model.width}, depth {model.depth}"
        yield (
            f"model: one trial with {sizes} and batch_size {largest.train.batch_size} takes about "
            f"{needed / 1e9:,.0f} GB, but this machine has {memory / 1e9:.0f}"
        )


def _roughly(config: TrialConfig, frame_set: FrameSet) -> int:
    """Like `estimated_bytes`, without building the networks."""
    size, model = (frame_set.manifest.height, frame_set.manifest.width), config.model
    height, width = downsampled(size, model.depth)[-1]
    channels = model.width << model.depth
    blocks = 1 + model.decoder.residual_blocks + model.discriminator.residual_blocks
    weights = 3 * model.latent_dim * channels * height * width + 25 * channels**2 * blocks
    return 20 * weights + 48 * config.train.batch_size * model.width * size[0] * size[1]


def odd_numbers(sweep: Sweep, frame_set: FrameSet) -> Iterator[str]:
    """Numbers that do no harm, but cannot be meant, each with what follows from it."""
    config, trials, steps = sweep.config, sweep.num_trials, sweep.steps
    train, evaluate = config.base["train"], config.base["evaluate"]
    batch = float(train.get("batch_size", 64))  # a number in quotes is one, too
    if batch > frame_set.num_train:
        yield f"train.batch_size {batch:g} holds each of the {frame_set.num_train} training frames several times."
    if float(evaluate["every"]) > steps:
        yield f"evaluate.every is more than the {steps} steps, so only the last step is evaluated."
    if float(train.get("log_every", 20)) > steps:
        yield f"train.log_every is more than the {steps} steps, so training curves have no points before the last."
    sampler = config.sampler
    learns = sampler.name in ("tpe", "gp", "cmaes") and "startup_trials" in sampler.model_fields_set
    if learns and sampler.startup_trials >= trials > len(config.points):
        yield f"sampler.startup_trials {sampler.startup_trials} lets none of {counted(trials, 'trial')} learn."
    if config.confirm and config.confirm.top > trials:
        yield f"confirm.top {config.confirm.top} is more than {counted(trials, 'trial')}: all are trained again."
    if len(config.points) > config.budget.trials:
        yield f"budget.trials {trials} is less than the {len(config.points)} named points: the last are not run."
