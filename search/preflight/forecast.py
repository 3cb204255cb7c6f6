"""What a sweep will cost: steps, hours, GPU-hours and disk."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from search.config.strategies import MOST_WAITING, AshaConfig
from search.config.sweep import Sweep
from search.running.resources import concurrent_trials, largest, suggestions
from search.standings.progress import confirming_steps, expected_steps, most_steps
from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.frame_features import ensure_features
from vaegan_core.training.resolve import at_full_cost, resolve
from vaegan_core.training.trainer import Trainer

PROBE_STEPS = 10
PROBE_REPEATS = 3
LONGEST_PROBE_SECONDS = 30.0
"""Limit for timing steps, and for timing evaluations; on a small machine a single step may take that long."""
BYTES_PER_POINT = 120
"""Disk use of a curve point in the journal and in MLflow's SQLite together, including indexes."""
COPIES_OF_A_GRID = 4
"""One in the journal; in MLflow a PNG and a WebP copy, which may be larger."""


@dataclass(frozen=True)
class Probe:
    """What the sweep's largest trial takes on this machine."""

    device: str
    step_seconds: float
    evaluation_seconds: float
    """Includes writing the checkpoint."""
    checkpoint_bytes: int
    model_bytes: int
    grid_bytes: int
    """Size of one evaluation's PNG files."""
    curves: int


def probe(sweep: Sweep) -> Probe:
    """Trains some steps of the sweep's largest trial on this machine and evaluates it."""
    frame_set = FrameSet.open(sweep.config.base["frames"])
    config = resolve(largest(suggestions(sweep), frame_set), threads=sweep.config.resources.cpu)
    trainer = Trainer(at_full_cost(config), frame_set, ensure_features(frame_set))
    with trainer.runtime(), TemporaryDirectory() as scratch:
        checkpoint, model = Path(scratch) / "checkpoint", Path(scratch) / "model"
        step = _seconds(trainer.train_step, PROBE_STEPS)
        evaluation = trainer.evaluate()

        def evaluate() -> None:
            trainer.evaluator.metrics(trainer.averaged, trainer.discriminator, trainer.update.terms.score)
            trainer.evaluator.images(trainer.averaged)
            trainer.save(checkpoint, evaluation)

        seconds = _seconds(evaluate, PROBE_REPEATS)
        trainer.save_model(model)
        return Probe(
            device=torch.cuda.get_device_name()
            if config.train.device == "cuda"
            else f"{config.train.threads} CPU core(s)",
            step_seconds=step,
            evaluation_seconds=seconds,
            checkpoint_bytes=checkpoint.stat().st_size,
            model_bytes=model.stat().st_size,
            grid_bytes=sum(len(png) for png in evaluation.images.values()),
            curves=len({point.key for point in evaluation.points}),
        )


def forecast(sweep: Sweep, found: Probe) -> Iterator[str]:
    """Yields what the sweep would cost at the rate of a probe, in words."""
    gpus = torch.cuda.device_count()
    slots = _slots(sweep, gpus)
    held = _gpus_held(sweep, slots, gpus)
    blocks = sweep.config.blocks
    hours, worst = (
        (steps * found.step_seconds + _evaluations(sweep, steps, count) * found.evaluation_seconds) / slots / 3600
        for steps, count in ((expected_steps(sweep), blocks.at_least), (most_steps(sweep), blocks.at_most))
    )
    yield (
        f"Measured with the largest trial on {found.device}: {1000 * found.step_seconds:.0f} ms a step, "
        f"{found.evaluation_seconds:.2f} s an evaluation, {found.checkpoint_bytes / 1e6:.0f} MB a checkpoint."
    )
    yield f"Forecast with {slots} at a time: {_hours(hours)} of wall time expected, {_hours(worst)} at most" + (
        f"; {hours * held:.1f} GPU-hours expected, {worst * held:.1f} at most." if held else "."
    )
    if sweep.config.questions:
        steps = sweep.trials_of_block * sweep.block_steps
        validations = steps / sweep.evaluate.every + sweep.trials_of_block * _beside(sweep, sweep.block_steps)
        minutes = (steps * found.step_seconds + validations * found.evaluation_seconds) / slots / 60
        yield f"A block of all questions takes {minutes:.0f} minutes, if each trial takes as long as the largest."
    yield f"Disk: at most {disk_forecast(sweep, slots, found) / 1e9:.2f} GB, including curves and image grids."


def disk_forecast(sweep: Sweep, slots: int, found: Probe) -> float:
    """Bytes of the checkpoints of trials that run or wait for a second chance, the best weights here and in MLflow, and
    all curves and image grids."""
    config = sweep.config
    log_every = float(config.base["train"].get("log_every", 20))
    evaluations = _evaluations(sweep, most_steps(sweep), config.blocks.at_most)
    points = found.curves * most_steps(sweep) / log_every * BYTES_PER_POINT
    kept = max(config.tracking.keep_models, config.confirm.top if config.confirm else 0)
    waits = isinstance(config.scheduler, AshaConfig) and config.scheduler.second_chance
    waiting = min(MOST_WAITING * len(sweep.rungs), sweep.num_trials) if waits else 0
    models = (slots + waiting) * found.checkpoint_bytes + 2 * kept * found.model_bytes
    return models + points + evaluations * found.grid_bytes * COPIES_OF_A_GRID


def _evaluations(sweep: Sweep, steps: float, blocks: int) -> float:
    """Number of validations in `steps` of all trials together, those of the first `blocks` blocks included."""
    trials = sweep.num_trials + confirming_steps(sweep) / sweep.steps
    of_blocks = sweep.trials_of_block * blocks
    beside = trials * _beside(sweep, sweep.steps) + of_blocks * _beside(sweep, sweep.block_steps)
    return steps / sweep.evaluate.every + beside


def _beside(sweep: Sweep, last: int) -> int:
    """Number of validations of a trial of `last` steps that are at no multiple of `evaluate.every`."""
    evaluate = sweep.evaluate
    return sum(step % evaluate.every > 0 for step in {*evaluate.also_at, last} if step <= last)


def _slots(sweep: Sweep, gpus: int) -> int:
    available = {"CPU": float(os.cpu_count() or 1), "GPU": float(gpus)}
    if sweep.config.resources.gpu == "auto":
        cpu_slots = int(available["CPU"] / sweep.config.resources.cpu)
        return max(1, min(cpu_slots, sweep.config.resources.max_concurrent or cpu_slots))
    return concurrent_trials(sweep, available)


def _gpus_held(sweep: Sweep, slots: int, gpus: int) -> float:
    """How many of this machine's GPUs its trials hold, as `budget.gpu_hours` counts them; all while `auto`."""
    share = sweep.config.resources.gpu
    return float(gpus) if share == "auto" else min(float(gpus), slots * share)


def _seconds(call: Callable[[], object], times: int) -> float:
    """Median seconds of `times` calls after a warm-up call; slow calls are timed fewer times, the warm-up included."""
    taken: list[float] = []
    while len(taken) <= times and sum(taken) < LONGEST_PROBE_SECONDS:
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:] or taken)


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 2 else f"{60 * hours:.0f} minutes"
