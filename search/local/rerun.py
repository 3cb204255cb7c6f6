"""Trains a trial again from what its MLflow run holds, without Ray, and says where the numbers first differ."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from mlflow import MlflowClient
from mlflow.entities import Param

from search.local.compare import Rerun, compare, read_points
from search.names import UNREPEATABLE_PREFIXES, Artifact, Kind, Outcome, Prefix, Tag
from search.provenance import describe_environment, source_tags
from search.tracking.reader import read_config, read_curve
from search.tracking.single_run import log_evaluation
from vaegan_core.config import TrialConfig
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import Evaluation, Point
from vaegan_core.metrics.frame_features import ensure_features
from vaegan_core.training.trainer import Trainer


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
    changed = [key for key in run.data.metrics if key.startswith(Prefix.PARAM)]
    if any(point.step > 0 for key in changed for point in read_curve(client, run_id, key)):
        raise ValueError(
            f"run {run_id} went on from other trials' states with changed parameters (population based training), so "
            "its configuration alone does not give it again"
        )
    trained_on = run.data.tags.get(Tag.FRAMES)
    if trained_on != frame_set.fingerprint:
        raise ValueError(
            f"run {run_id} was trained on frames {trained_on}, but {config.frames} holds {frame_set.fingerprint}; "
            "name the right directory with --frames"
        )
    return config, frame_set


def rerun(
    client: MlflowClient, run_id: str, config: TrialConfig, frame_set: FrameSet, progress: Callable[[int], None]
) -> Rerun:
    """Trains to the step the run reached, compares every repeatable curve point bit for bit, and keeps curves and
    verdict in a run of its own below that one."""
    before = read_points(client, run_id)
    last_step = max((step for _, step in before), default=0)
    trainer = Trainer(config, frame_set, ensure_features(frame_set))
    own_run = _open_run(client, run_id, trainer.config)
    points: list[Point] = []
    evaluations: list[Evaluation] = []

    class ReachedLastStep(Exception):
        pass

    def report(evaluation: Evaluation) -> None:
        points.extend(evaluation.points)
        evaluations.append(evaluation)
        log_evaluation(client, own_run, evaluation)
        if evaluation.step >= last_step:
            raise ReachedLastStep

    status, outcome = "KILLED", "interrupted"
    try:
        with suppress(ReachedLastStep):
            trainer.run(report, progress=progress)
        now = {(p.key, p.step): p.value for p in points if not p.key.startswith(UNREPEATABLE_PREFIXES)}
        found = compare(own_run, before, now, evaluations[-1])
        client.set_tag(own_run, Tag.IDENTICAL, str(found.first is None).lower())
        status, outcome = "FINISHED", found.outcome
    finally:
        client.set_tag(own_run, Tag.OUTCOME, outcome)
        client.set_terminated(own_run, status)
    return found


def _open_run(client: MlflowClient, of_run: str, config: TrialConfig) -> str:
    run = client.get_run(of_run)
    environment = describe_environment(config)
    kept = (Tag.SWEEP_ID, Tag.SWEEP_NAME, Tag.TRIAL, Tag.FRAMES)
    made = client.create_run(
        run.info.experiment_id,
        run_name=f"{run.info.run_name}-rerun",
        tags={
            "mlflow.parentRunId": of_run,
            "mlflow.loggedImages": "True",
            Tag.KIND: Kind.RERUN,
            Tag.OUTCOME: Outcome.RUNNING,
            Tag.HOST: environment["host"],
            Tag.DEVICE: environment["device"],
            **{tag: run.data.tags[tag] for tag in kept if tag in run.data.tags},
            **source_tags(),
        },
    )
    own_run = str(made.info.run_id)
    client.log_batch(own_run, params=[Param(key, value) for key, value in run.data.params.items()])
    client.log_text(own_run, config.to_yaml(), Artifact.CONFIG)
    return own_run
