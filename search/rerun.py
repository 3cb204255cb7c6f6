"""Trains a trial again from what its MLflow run holds, without Ray, and says where the numbers first differ."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from mlflow import MlflowClient

from search import names
from search.runs import read_config, read_curve
from vaegan_core.config import TrialConfig
from vaegan_core.evaluation import Evaluation, Point
from vaegan_core.features import ensure_features
from vaegan_core.frames import FrameSet
from vaegan_core.trainer import Trainer

UNREPEATABLE_PREFIX = "speed/"


@dataclass(frozen=True)
class Difference:
    """The earliest curve point that came out different."""

    key: str
    step: int
    before: float | None
    now: float | None


@dataclass(frozen=True)
class Rerun:
    compared: int
    differing: int
    first: Difference | None
    metrics: dict[str, float]
    outcome: str


def prepare_rerun(
    client: MlflowClient, run_id: str, frames: str | None, inception_weights: str | None
) -> tuple[TrialConfig, FrameSet]:
    """The run's configuration and its frames, at `frames` when they moved; likewise Inception's weights, if it had any.

    Raises ValueError when the run is unknown, its frames are not the ones it was trained on, or its parameters were
    changed on the way.
    """
    config = read_config(client, run_id)
    if frames is not None:
        config = config.model_copy(update={"frames": frames})
    if inception_weights is not None and config.evaluate.inception_weights is not None:
        evaluate = config.evaluate.model_copy(update={"inception_weights": inception_weights})
        config = config.model_copy(update={"evaluate": evaluate})
    frame_set = FrameSet.open(config.frames)
    run = client.get_run(run_id)
    changed = [key for key in run.data.metrics if key.startswith(names.PARAM_PREFIX)]
    if any(point.step > 0 for key in changed for point in read_curve(client, run_id, key)):
        raise ValueError(
            f"run {run_id} went on from other trials' states with changed parameters (population based training), so "
            "its configuration alone does not give it again"
        )
    trained_on = run.data.tags.get(names.FRAMES_TAG)
    if trained_on != frame_set.fingerprint:
        raise ValueError(
            f"run {run_id} was trained on frames {trained_on}, but {config.frames} holds {frame_set.fingerprint}; "
            "name the right directory with --frames"
        )
    return config, frame_set


def rerun(
    client: MlflowClient, run_id: str, config: TrialConfig, frame_set: FrameSet, progress: Callable[[int], None]
) -> Rerun:
    """Trains to the step the run reached, and compares every repeatable curve point bit for bit."""
    before = read_points(client, run_id)
    last_step = max((step for _, step in before), default=0)
    trainer = Trainer(config, frame_set, ensure_features(frame_set))
    points: list[Point] = []
    evaluations: list[Evaluation] = []

    class ReachedLastStep(Exception):
        pass

    def report(evaluation: Evaluation) -> None:
        points.extend(evaluation.points)
        evaluations.append(evaluation)
        if evaluation.step >= last_step:
            raise ReachedLastStep

    with suppress(ReachedLastStep):
        trainer.run(report, progress=progress)
    now = {(p.key, p.step): p.value for p in points if not p.key.startswith(UNREPEATABLE_PREFIX)}
    return _compare(before, now, evaluations[-1])


def read_points(client: MlflowClient, run_id: str) -> dict[tuple[str, int], float]:
    """Every repeatable curve point of a run by (key, step): what the trainer made, not what was derived from it."""
    derived = (
        *(names.FINAL_PREFIX, names.BEST_PREFIX, names.CONFIRMED_PREFIX, names.HALF_WIDTH_PREFIX),
        *("system/", names.PARAM_PREFIX, UNREPEATABLE_PREFIX),
    )
    keys = [key for key in client.get_run(run_id).data.metrics if not key.startswith(derived)]
    return {(key, point.step): point.value for key in keys for point in read_curve(client, run_id, key)}


def _compare(before: dict[tuple[str, int], float], now: dict[tuple[str, int], float], last: Evaluation) -> Rerun:
    differing = [key for key in before.keys() | now.keys() if before.get(key) != now.get(key)]
    first = None
    if differing:
        key, step = min(differing, key=lambda item: (item[1], item[0]))
        first = Difference(key, step, before.get((key, step)), now.get((key, step)))
    return Rerun(len(before), len(differing), first, last.metrics, last.outcome)
