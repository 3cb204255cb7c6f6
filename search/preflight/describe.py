"""What a valid sweep would do, said before it is paid for."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution

from search.commands.live import expected_end
from search.config.strategies import LEARNS_DIVERGENCE, UNCONSTRAINED
from search.config.sweep_config import Sweep
from search.journal.sweeps import check_inception
from search.paths import sweeps_directory, tracking_uri
from search.redaction import redact
from search.running.driver import concurrent_trials
from search.running.gpu_share import largest, suggestions
from search.tracking.client import check_storage, check_tracking
from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.frame_features import ensure_features
from vaegan_core.model.networks import check_size
from vaegan_core.training.resolve import resolve
from vaegan_core.training.trainer import Trainer

PROBE_STEPS = 10
PROBE_REPEATS = 3
LONGEST_PROBE_SECONDS = 30.0
"""Of steps, and of evaluations; on a machine that is too small for the sweep a single step may take that long."""
BYTES_PER_POINT = 120
"""Of a curve point, in the journal and in MLflow's SQLite together, indexes included."""
COPIES_OF_A_GRID = 4
"""In the journal, and in MLflow as PNG and as WebP, which may be the larger."""


def describe(sweep: Sweep) -> Iterator[str]:
    """Lines for people. Raises ValueError when the frames are missing or too small for the networks, the Inception
    weights are not usable, or nothing can be written where the sweep writes."""
    config = sweep.config
    frame_set = FrameSet.open(config.base["frames"])
    manifest = frame_set.manifest
    configs = list(suggestions(sweep))
    for trial in configs:
        check_size(trial, (manifest.height, manifest.width))
    inception_weights = check_inception(sweep)
    check_storage(sweeps_directory())
    check_tracking(tracking_uri(config.tracking.uri), config.tracking.experiment)
    size = sweep.space.size()
    parameters = sweep.space.parameters()
    yield f"{config.name}: valid."
    yield (
        f"Frames: {frame_set.num_train} training, {len(frame_set) - frame_set.num_train} test, "
        f"{manifest.width}x{manifest.height}, fingerprint {frame_set.fingerprint} ({config.base['frames']})."
    )
    if parameters:
        amount = "continuous" if math.isinf(size) else f"{size:,.0f} configurations"
        yield f"Space: {len(parameters)} parameters, {amount}; {len(configs)} random suggestions are valid trials."
    else:
        yield f"No space: {len(config.points)} named points, {', '.join(config.points)}."
    for name, distribution in parameters.items():
        yield f"  {name}: {_words(distribution)}"
    yield from _plan(sweep)
    if inception_weights is not None:
        yield f"Each trial's last evaluation has val/samples_fid, with the weights in {inception_weights}."


def _plan(sweep: Sweep) -> Iterator[str]:
    config = sweep.config
    yield f"Objectives, to be minimised: {', '.join(config.objectives)}."
    if config.constraints:
        yield f"Constraints: {', '.join(map(str, sweep.constraints))}."
    sampler = config.sampler.name
    if sampler not in LEARNS_DIVERGENCE:
        yield f"Note: {sampler} learns nothing from trials that diverge; tpe does."
    if config.constraints and sampler in UNCONSTRAINED:
        yield f"Note: {sampler} does not see the constraints; they only decide who is called best."
    trials = sweep.num_trials
    rungs = ", ".join(str(step) for step in sweep.rungs) or "none"
    yield f"Trials: {trials} ({len(config.points)} of them named points), {sweep.steps} steps each, rungs at {rungs}."
    if config.confirm:
        yield f"Then the best {config.confirm.top} again, each with {config.confirm.seeds} fresh seeds."
    yield f"Steps: {expected_steps(sweep):,.0f} expected, {most_steps(sweep):,} at most."
    gpu = config.resources.gpu
    share = "as much of a GPU as is measured to be needed, where there is one" if gpu == "auto" else f"{gpu:g} GPU"
    yield f"Each trial takes {config.resources.cpu} CPU and {share}."
    budgets = [f"{value:g} {key.replace('_', ' ')}" for key, value in config.budget.model_dump().items() if value]
    yield f"It ends after {' or '.join(budgets)}{', whichever comes first' if len(budgets) > 1 else ''}."
    uri = redact(tracking_uri(config.tracking.uri))
    yield f"Files go to {sweeps_directory() / config.name}, curves to MLflow at {uri}."


def expected_steps(sweep: Sweep) -> float:
    return sweep.num_trials * expected_end(sweep) + _confirming_steps(sweep)


def most_steps(sweep: Sweep) -> int:
    """Without early stopping."""
    return sweep.num_trials * sweep.steps + _confirming_steps(sweep)


def _confirming_steps(sweep: Sweep) -> int:
    confirm = sweep.config.confirm
    return confirm.top * confirm.seeds * sweep.steps if confirm else 0


# --- Forecast ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Probe:
    """What the largest trial takes here."""

    device: str
    step_seconds: float
    evaluation_seconds: float
    """With its checkpoint."""
    checkpoint_bytes: int
    model_bytes: int
    grid_bytes: int
    """PNG files of one evaluation."""
    curves: int


def probe(sweep: Sweep) -> Probe:
    """Trains some steps of the sweep's largest trial on this machine and evaluates it."""
    frame_set = FrameSet.open(sweep.config.base["frames"])
    config = resolve(largest(suggestions(sweep), frame_set), threads=sweep.config.resources.cpu)
    trainer = Trainer(config, frame_set, ensure_features(frame_set))
    with trainer._runtime(), TemporaryDirectory() as scratch:
        checkpoint, model = Path(scratch) / "checkpoint", Path(scratch) / "model"
        step = _seconds(trainer.train_step, PROBE_STEPS)
        trainer._flush()
        evaluation = trainer.evaluate()

        def evaluate() -> None:
            trainer.evaluator.metrics(trainer.averaged, trainer.discriminator)
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
    """What the sweep would cost at the rate of a probe."""
    gpus = torch.cuda.device_count()
    slots = _slots(sweep, gpus)
    evaluations = expected_steps(sweep) / float(sweep.config.base["evaluate"]["every"])
    hours = (expected_steps(sweep) * found.step_seconds + evaluations * found.evaluation_seconds) / slots / 3600
    worst = hours * most_steps(sweep) / expected_steps(sweep)
    yield (
        f"Measured with the largest trial on {found.device}: {1000 * found.step_seconds:.0f} ms a step, "
        f"{found.evaluation_seconds:.2f} s an evaluation, {found.checkpoint_bytes / 1e6:.0f} MB a checkpoint."
    )
    yield f"Forecast with {slots} at a time: {_hours(hours)} of wall time expected, {_hours(worst)} at most" + (
        f"; {hours * gpus:.1f} GPU-hours expected, {worst * gpus:.1f} at most." if gpus else "."
    )
    yield f"Disk: at most {disk_forecast(sweep, slots, found) / 1e9:.2f} GB, curves and image grids among them."


def disk_forecast(sweep: Sweep, slots: int, found: Probe) -> float:
    """Bytes: checkpoints of what runs, weights of the best here and in MLflow, curves and grids of all evaluations."""
    config = sweep.config
    log_every = float(config.base["train"].get("log_every", 20))
    evaluations = most_steps(sweep) / float(config.base["evaluate"]["every"])
    points = found.curves * most_steps(sweep) / log_every * BYTES_PER_POINT
    kept = max(config.tracking.keep_models, config.confirm.top if config.confirm else 0)
    models = slots * found.checkpoint_bytes + 2 * kept * found.model_bytes
    return models + points + evaluations * found.grid_bytes * COPIES_OF_A_GRID


def _slots(sweep: Sweep, gpus: int) -> int:
    available = {"CPU": float(os.cpu_count() or 1), "GPU": float(gpus)}
    if sweep.config.resources.gpu == "auto":
        cpu_slots = int(available["CPU"] / sweep.config.resources.cpu)
        return max(1, min(cpu_slots, sweep.config.resources.max_concurrent or cpu_slots))
    return concurrent_trials(sweep, available)


def _seconds(call: Callable[[], object], times: int) -> float:
    """Median time of a call after one that warms up; of fewer calls, and that one too, where they take long."""
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


def _words(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return "one of " + ", ".join(str(choice) for choice in distribution.choices)
    low, high = getattr(distribution, "low", 0), getattr(distribution, "high", 0)
    step = getattr(distribution, "step", None)
    scale = " on a log scale" if getattr(distribution, "log", False) else f" in steps of {step}" if step else ""
    return f"{low:g} to {high:g}{scale}"
