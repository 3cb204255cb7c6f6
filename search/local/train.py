"""`vaegan train`: one training without a sweep or Ray, its curves in MLflow and its files in a directory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from mlflow import MlflowClient

from search.config.load import load_sweep
from search.config.problems import missing_frames
from search.lease import LOCK_FILE, lease
from search.names import Artifact, Outcome
from search.paths import CHECKPOINT_FILE, tracking_uri
from search.provenance import describe_environment
from search.tracking.client import open_client
from search.tracking.runs import diagnosis_tags, log_evaluation
from search.tracking.single_run import RunLog, end_run, open_training
from vaegan_core.config.trial import TrialConfig, load_trial, parse_trial
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import Evaluation
from vaegan_core.metrics.frame_features import ensure_features
from vaegan_core.problems import ConfigError
from vaegan_core.spelling import did_you_mean
from vaegan_core.strict_yaml import load_yaml
from vaegan_core.tensor_files import read_metadata, write_atomically
from vaegan_core.training.machine import decided, differences
from vaegan_core.training.resolve import resolve
from vaegan_core.training.trainer import Trainer


def load_single(path: Path, overrides: Iterable[str], point: str | None, *, need_frames: bool = False) -> TrialConfig:
    """The trial in a YAML file, or the named point of the sweep in it. Raises ConfigError with every error; with
    `need_frames` a missing frame set is one."""
    data = load_yaml(path)
    if "base" not in data:
        if point is not None:
            raise ConfigError(str(path), [("", f"is a trial, not a sweep, so it has no points; drop --point {point}")])
        trial = load_trial(path, overrides)
        if need_frames and (missing := list(missing_frames(trial.frames, path.read_text(encoding="utf-8"), "frames"))):
            raise ConfigError(str(path), missing)
        return trial
    sweep = load_sweep(path, overrides, need_frames=need_frames)
    points = sweep.config.points
    if point is None or point not in points:
        wrong = "train one of its points with --point" if point is None else f"it has no point named {point}"
        known = f"its points: {', '.join(points) or 'none'}{did_you_mean(point, points)}"
        raise ConfigError(str(path), [("", f"is a sweep; {wrong}; {known}")])
    try:
        return sweep.trial_of_point(point)
    except ValueError as error:
        raise ConfigError(str(path), [(f"points.{point}", str(error))]) from None


def train_single(
    config: TrialConfig, directory: Path, *, resume: bool, progress: Callable[[int], None], say: Callable[[str], None]
) -> None:
    """Trains `config` into `directory`; with `resume`, continues from the checkpoint there.

    Raises ValueError if the directory holds another training, or nothing to resume, and while another process trains
    there.
    """
    frame_set = FrameSet.open(config.frames)
    features = ensure_features(frame_set)
    resolved = resolve(config)
    trainer = Trainer(resolved, frame_set, features)
    _claim(config, directory, resume)
    if resume and (directory / CHECKPOINT_FILE).exists():
        saved = parse_trial(read_metadata(directory / CHECKPOINT_FILE)["config"], str(directory / CHECKPOINT_FILE))
        if changes := differences(decided(saved), decided(resolved)):
            say(f"This machine computes otherwise than the one before: {', '.join(changes)}.")
    with lease(directory, what="a training"):
        client = open_client(tracking_uri())
        run_id = open_training(
            client, directory, config, describe_environment(resolved), frame_set.fingerprint, features.fingerprint
        )
        _train(trainer, directory, client, run_id, progress, say)


def _train(
    trainer: Trainer,
    directory: Path,
    client: MlflowClient,
    run_id: str,
    progress: Callable[[int], None],
    say: Callable[[str], None],
) -> None:
    log = RunLog(say)
    outcome: str = Outcome.FAILED

    def report(evaluation: Evaluation) -> None:
        nonlocal outcome
        log.offer(partial(log_evaluation, client, run_id, evaluation))
        metrics = ", ".join(f"{key} {value:.4g}" for key, value in evaluation.metrics.items())
        say(f"step {evaluation.step}: {metrics or evaluation.reason}")
        if evaluation.outcome == "completed":
            trainer.save_model(directory / Artifact.MODEL)
            log.offer(partial(client.log_artifact, run_id, str(directory / Artifact.MODEL)))
        for tag, value in diagnosis_tags(evaluation.diagnoses).items():
            log.offer(partial(client.set_tag, run_id, tag, value))
        if evaluation.outcome != "running":
            outcome = evaluation.outcome

    try:
        trainer.run(report, checkpoint=directory / CHECKPOINT_FILE, progress=progress, since=0)
    except KeyboardInterrupt:
        outcome = Outcome.INTERRUPTED
        raise
    finally:
        log.offer(partial(end_run, client, run_id, outcome))
        if not log.all_sent:
            say(f"MLflow does not have all of this training. Send it with: --resume --output {directory}")


def _claim(config: TrialConfig, directory: Path, resume: bool) -> None:
    """Writes the configuration into a new directory; checks it against the one there when resuming."""
    path = directory / Artifact.CONFIG
    if resume:
        if not path.is_file():
            raise ValueError(f"nothing to resume in {directory}: it has no {Artifact.CONFIG}")
        if load_trial(path) not in (config, resolve(config)):  # a version before 0.3 wrote what it resolved to
            raise ValueError(f"the configuration differs from {path}; resume with the same YAML and --set")
        return
    if path.exists() and (directory / LOCK_FILE).exists():
        raise ValueError(f"{directory} already holds a training; choose another --output, or continue it with --resume")
    if directory.is_dir() and any(directory.iterdir()):
        raise ValueError(f"--output must be a new or empty directory, but {directory} holds files")
    write_atomically(path, config.to_yaml().encode())
