"""`vaegan rerun`: trains a trial again from its MLflow run alone, without Ray, and says where numbers first differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from search.local.compare import Rerun, compare, read_points
from search.names import UNREPEATABLE_PREFIXES, Outcome, Prefix, Tag
from search.provenance import DECIDED, decided_in, describe_environment, moved
from search.tracking.reader import read_config, read_curve
from search.tracking.runs import log_evaluation
from search.tracking.single_run import RunLog, end_run, open_rerun
from vaegan_core.config import TrialConfig
from vaegan_core.data.frames import MANIFEST_FILE, FrameSet
from vaegan_core.evaluation import Evaluation, Point
from vaegan_core.metrics.frame_features import ensure_features
from vaegan_core.training.machine import decided, wishing
from vaegan_core.training.resolve import resolve
from vaegan_core.training.trainer import Trainer


def prepare_rerun(
    client: MlflowClient, run_id: str, frames: str | None, inception_weights: str | None
) -> tuple[TrialConfig, FrameSet, str]:
    """The run's configuration, resolved as it was wherever this machine can; its frame set; and what differs here, in
    words, "" for nothing. `frames` and `inception_weights` say where those lie now, if they moved.

    Raises ValueError if the run is unknown, the frames are not those it was trained on, or its parameters changed
    during training.
    """
    config = read_config(client, run_id)
    if frames is not None:
        config = config.model_copy(update={"frames": frames})
    if inception_weights is not None and config.evaluate.inception_weights is not None:
        evaluate = config.evaluate.model_copy(update={"inception_weights": inception_weights})
        config = config.model_copy(update={"evaluate": evaluate})
    run = client.get_run(run_id)
    if not (Path(config.frames) / MANIFEST_FILE).is_file():
        raise ValueError(
            f"run {run_id} was trained on frames {run.data.tags.get(Tag.FRAMES)}, but there are none at "
            f"{config.frames}; say with --frames DIR where they are now"
        )
    frame_set = FrameSet.open(config.frames)
    changed = [key for key in run.data.metrics if key.startswith(Prefix.PARAM)]
    if any(point.step > 0 for key in changed for point in read_curve(client, run_id, key)):
        raise ValueError(
            f"run {run_id} continued from other trials' states with changed parameters (population based training), "
            "so its configuration alone does not reproduce it"
        )
    trained_on = run.data.tags.get(Tag.FRAMES)
    if trained_on != frame_set.fingerprint:
        raise ValueError(
            f"run {run_id} was trained on frames {trained_on}, but {config.frames} holds {frame_set.fingerprint}; "
            "give the right directory with --frames"
        )
    facts = decided_in(run.data.tags)
    resolved = resolve(_on_any_device(config, facts), before=facts or decided(config))
    here = describe_environment(resolved)
    tags = {Tag.DEVICE: run.data.tags.get(Tag.DEVICE, here["device"])}
    return resolved, frame_set, moved(tags | {DECIDED: json.dumps(facts or decided(config))}, here)


def _on_any_device(config: TrialConfig, facts: Mapping[str, Any]) -> TrialConfig:
    """The configuration free to run on another device; a version before 0.3 kept facts in the place of wishes."""
    return wishing(config, decided(config) | {"device": "auto"} if facts else {})


def rerun(
    client: MlflowClient,
    run_id: str,
    config: TrialConfig,
    frame_set: FrameSet,
    progress: Callable[[int], None],
    say: Callable[[str], None],
) -> Rerun:
    """Trains to the step that the run reached and compares every repeatable curve point bit for bit. Curves and verdict
    are kept in a run of its own below that one."""
    before = read_points(client, run_id)
    last_step = max((step for _, step in before), default=0)
    trainer = Trainer(config, frame_set, ensure_features(frame_set))
    own_run = open_rerun(client, run_id, trainer.config)
    log = RunLog(say)
    points: list[Point] = []
    evaluations: list[Evaluation] = []

    class ReachedLastStep(Exception):
        pass

    def report(evaluation: Evaluation) -> None:
        points.extend(evaluation.points)
        evaluations.append(evaluation)
        log.offer(partial(log_evaluation, client, own_run, evaluation))
        if evaluation.step >= last_step:
            raise ReachedLastStep

    outcome: str = Outcome.INTERRUPTED
    try:
        with suppress(ReachedLastStep):
            trainer.run(report, progress=progress)
        now = {(p.key, p.step): p.value for p in points if not p.key.startswith(UNREPEATABLE_PREFIXES)}
        result = compare(own_run, before, now, evaluations[-1])
        log.offer(partial(client.set_tag, own_run, Tag.IDENTICAL, str(result.first is None).lower()))
        outcome = result.outcome
    finally:
        log.offer(partial(end_run, client, own_run, outcome))
    return result
