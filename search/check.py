"""What a valid sweep would do, said before it is paid for."""

from __future__ import annotations

import math
from collections.abc import Iterator

from optuna.distributions import BaseDistribution, CategoricalDistribution

from search.config import Sweep, sweeps_directory, tracking_uri
from search.live import expected_steps_per_trial
from vaegan_core.frames import FrameSet
from vaegan_core.trainer import check_size


def describe(sweep: Sweep) -> Iterator[str]:
    """Lines for people. Raises ValueError when the frames are missing or too small for the networks."""
    config = sweep.config
    frame_set = FrameSet.open(config.base["frames"])
    manifest = frame_set.manifest
    check_size(sweep.trial(_any_suggestion(sweep)), (manifest.height, manifest.width))
    for values in config.points.values() if not sweep.space.nodes else ():
        check_size(sweep.trial(values), (manifest.height, manifest.width))
    size = sweep.space.size()
    parameters = sweep.space.parameters()
    yield f"{config.name}: valid."
    yield (
        f"Frames: {frame_set.num_train} training, {len(frame_set) - frame_set.num_train} test, "
        f"{manifest.width}x{manifest.height}, fingerprint {frame_set.fingerprint} ({config.base['frames']})."
    )
    if parameters:
        amount = "continuous" if math.isinf(size) else f"{size:,.0f} configurations"
        yield f"Space: {len(parameters)} parameters, {amount}."
    else:
        yield f"No space: {len(config.points)} named points, {', '.join(config.points)}."
    for name, distribution in parameters.items():
        yield f"  {name}: {_words(distribution)}"
    yield f"Objectives, to be minimised: {', '.join(config.objectives)}."
    trials = config.budget.trials
    expected = trials * expected_steps_per_trial(sweep)
    rungs = ", ".join(str(step) for step in sweep.rungs) or "none"
    yield f"Trials: {trials} ({len(config.points)} of them named points), {sweep.steps} steps each, rungs at {rungs}."
    yield f"Steps: {expected:,.0f} expected with early stopping, {trials * sweep.steps:,} without."
    yield f"Each trial takes {config.resources.cpu} CPU and {config.resources.gpu:g} GPU."
    yield f"Files go to {sweeps_directory() / config.name}, curves to MLflow at {tracking_uri(config.tracking)}."


def _any_suggestion(sweep: Sweep) -> dict[str, object]:
    import optuna

    return sweep.space.suggest(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask())


def _words(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return "one of " + ", ".join(str(choice) for choice in distribution.choices)
    low, high = getattr(distribution, "low", 0), getattr(distribution, "high", 0)
    step = getattr(distribution, "step", None)
    scale = " on a log scale" if getattr(distribution, "log", False) else f" in steps of {step}" if step else ""
    return f"{low:g} to {high:g}{scale}"
