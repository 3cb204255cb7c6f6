"""One training outside a sweep: the same trainer, with its curves in MLflow and its files in a directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from mlflow import MlflowClient
from optuna.trial import FixedTrial

from search.config.load import load_sweep
from search.names import Artifact, Kind, Outcome, Tag
from search.paths import CHECKPOINT_FILE, tracking_uri
from search.provenance import describe_environment, source_tags
from search.tracking.client import ensure_experiment, open_client
from search.tracking.runs import diagnosis_tags
from search.tracking.single_run import log_evaluation
from vaegan_core.config import TrialConfig, load_trial
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import Evaluation
from vaegan_core.metrics.frame_features import ensure_features
from vaegan_core.problems import ConfigError
from vaegan_core.strict_yaml import load_yaml
from vaegan_core.tensor_files import write_atomically
from vaegan_core.training.resolve import resolve
from vaegan_core.training.trainer import Trainer

RUN_ID_FILE = "run_id.txt"
EXPERIMENT = "vaegan-train"
STATUS = {"completed": "FINISHED", "diverged": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


def load_single(path: Path, overrides: Iterable[str], point: str | None) -> TrialConfig:
    """The trial in a YAML file, or the named point of the sweep in it. Raises ConfigError with every error."""
    data = load_yaml(path)
    if "base" not in data:
        if point is not None:
            raise ConfigError(str(path), [("", "is a trial and has no points; leave --point away")])
        return load_trial(path, overrides)
    sweep = load_sweep(path, overrides)
    points = sweep.config.points
    if point is None or point not in points:
        wanted = "train one of its points with --point" if point is None else f"{point} is none of its points"
        raise ConfigError(str(path), [("", f"is a sweep; {wanted}: {', '.join(points) or 'it has none'}")])
    try:
        values = sweep.space.suggest(FixedTrial(points[point]))
    except ValueError as error:
        raise ConfigError(str(path), [(f"points.{point}", f"leaves something to the sampler: {error}")]) from None
    return sweep.trial(points[point] | values)


def train_single(
    config: TrialConfig, directory: Path, *, resume: bool, progress: Callable[[int], None], say: Callable[[str], None]
) -> None:
    """Trains `config` into `directory`, from its checkpoint with `resume`.

    Raises ValueError when the directory holds another training, or there is nothing to resume.
    """
    frame_set = FrameSet.open(config.frames)
    features = ensure_features(frame_set)
    resolved = resolve(config)
    trainer = Trainer(resolved, frame_set, features)
    _claim(resolved, directory, resume)
    client = open_client(tracking_uri())
    run_id = _open_run(client, directory, resolved, frame_set)
    outcome = "failed"

    def report(evaluation: Evaluation) -> None:
        nonlocal outcome
        log_evaluation(client, run_id, evaluation)
        metrics = ", ".join(f"{key} {value:.4g}" for key, value in evaluation.metrics.items())
        say(f"step {evaluation.step}: {metrics or evaluation.reason}")
        if evaluation.outcome == "completed":
            trainer.save_model(directory / Artifact.MODEL)
            client.log_artifact(run_id, str(directory / Artifact.MODEL))
        for tag, value in diagnosis_tags(evaluation.diagnoses).items():
            client.set_tag(run_id, tag, value)
        if evaluation.outcome != "running":
            outcome = evaluation.outcome

    try:
        trainer.run(report, checkpoint=directory / CHECKPOINT_FILE, progress=progress)
    except KeyboardInterrupt:
        outcome = "interrupted"
        say(f"Stopped; go on with --resume --output {directory}")
        raise
    finally:
        client.set_tag(run_id, Tag.OUTCOME, outcome)
        client.set_terminated(run_id, STATUS[outcome])


def _claim(config: TrialConfig, directory: Path, resume: bool) -> None:
    """Writes the configuration into a new directory; when resuming, it must be the one written there."""
    path = directory / Artifact.CONFIG
    if resume:
        if not path.is_file():
            raise ValueError(f"there is nothing to resume in {directory}: it has no {Artifact.CONFIG}")
        if load_trial(path) != config:
            raise ValueError(f"the configuration differs from {path}; resume with the same YAML and --set")
        return
    if path.exists():
        raise ValueError(f"{directory} holds a training already; choose another --output, or go on with --resume")
    write_atomically(path, config.to_yaml().encode())


def _open_run(client: MlflowClient, directory: Path, config: TrialConfig, frame_set: FrameSet) -> str:
    note = directory / RUN_ID_FILE
    if note.exists():
        run_id = note.read_text()
        client.update_run(run_id, status="RUNNING")
        return run_id
    environment = describe_environment(config)
    run = client.create_run(
        ensure_experiment(client, tracking_uri(), EXPERIMENT),
        run_name=directory.name,
        start_time=int(time.time() * 1000),
        tags={
            "mlflow.loggedImages": "True",
            Tag.KIND: Kind.TRIAL,
            Tag.OUTCOME: Outcome.RUNNING,
            Tag.FRAMES: frame_set.fingerprint,
            Tag.HOST: environment["host"],
            Tag.DEVICE: environment["device"],
            "torch": torch.__version__,
            **source_tags(),
        },
    )
    run_id = str(run.info.run_id)
    client.log_text(run_id, config.to_yaml(), Artifact.CONFIG)
    write_atomically(note, run_id.encode())
    return run_id
