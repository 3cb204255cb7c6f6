"""A sweep in an MLflow store, planted without a driver: its trial was really trained, so that its weights can be
measured, and everything else about it is as a test wants it."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from trials import tiny

from search.names import Artifact, Kind, Tag
from search.promotion.promote import Promotion, Voice, Wish, promote
from search.provenance import describe_environment, installed_packages
from search.tracking.client import ensure_experiment
from search.tracking.runs import NewRun, create_run
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE, Evaluation
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.training.resolve import resolve
from vaegan_core.training.trainer import Trainer

OBJECTIVES = (PIXEL_MSE, LAYOUT_FD)
SEEDS = {"promote": {"seeds": 0, "baseline": None}}
"""For tests of other gates: a training of 12 steps beats no picture."""
TWO_SEEDS: dict[str, Any] = {"promote": {"seeds": 2, "baseline": None}}


@dataclass(frozen=True)
class Trained:
    """One training, and where its weights are."""

    weights: Path
    metrics: Mapping[str, float]
    frames: Path
    fingerprint: str


def train_one(directory: Path, frame_set: FrameSet, features: FrameFeatures) -> Trained:
    """A training of 12 steps."""
    trainer = Trainer(tiny(frames=str(frame_set.path)), frame_set, features)
    evaluations: list[Evaluation] = []
    trainer.run(evaluations.append)
    trainer.save_model(directory / Artifact.MODEL)
    assert frame_set.path
    return Trained(directory / Artifact.MODEL, evaluations[-1].metrics, frame_set.path, frame_set.fingerprint)


class Planted:
    """An MLflow store with sweeps of that training."""

    def __init__(self, uri: str, trained: Trained) -> None:
        self.client = MlflowClient(uri)
        self.uri = uri
        self.trained = trained

    def sweep(self, name: str = "toy", *, status: str = "FINISHED", frames: str | None = None, **data: Any) -> str:
        """Id of a sweep's run; `data` goes into its YAML, `objectives` into its tag as well."""
        base = tiny(frames=str(self.trained.frames)).model_dump(mode="json")
        text = yaml.safe_dump({"name": name, "base": base, "objectives": list(OBJECTIVES)} | SEEDS | data)
        more: dict[str, str] = {
            Tag.SWEEP_ID: f"id-of-{name}",
            Tag.SWEEP_NAME: name,
            Tag.OBJECTIVES: ",".join(data.get("objectives", OBJECTIVES)),
            Tag.FRAMES: frames or self.trained.fingerprint,
        }
        run_id = create_run(self.client, ensure_experiment(self.client, "planted"), NewRun(Kind.SWEEP, name, more=more))
        values = {"mean_color_mse": 1.0, "mean_color_layout_fd": 1000.0, "floor_layout_fd": 1.0}
        self.client.log_batch(run_id, [Metric(f"baseline/{key}", value, 1, 0) for key, value in values.items()])
        self.client.log_text(run_id, text, Artifact.SWEEP)
        self.client.log_text(run_id, installed_packages(), Artifact.ENVIRONMENT)
        self.client.set_terminated(run_id, status)
        return run_id

    def trial(
        self, sweep: str, number: int, outcome: str = "completed", *, weights: bool = True, **metrics: float
    ) -> str:
        """Id of a trial's run: the training's values, but for `metrics` by the last part of their names."""
        parent = self.client.get_run(sweep)
        config = tiny(frames=str(self.trained.frames))
        new = NewRun(
            Kind.TRIAL,
            f"{parent.info.run_name}-{number:03d}",
            environment=describe_environment(resolve(config)),
            parent=sweep,
            more={str(tag): parent.data.tags[tag] for tag in (Tag.SWEEP_ID, Tag.SWEEP_NAME, Tag.FRAMES)}
            | {Tag.TRIAL: str(number), Tag.OUTCOME: outcome, Tag.FEASIBLE: "true"},
        )
        run_id = create_run(self.client, parent.info.experiment_id, new)
        values = {**self.trained.metrics, **{f"val/{key}": value for key, value in metrics.items()}, "step": 12.0}
        if outcome == "completed":
            self.client.log_batch(run_id, [Metric(f"final/{key}", value, 1, 12) for key, value in values.items()])
        self.client.log_batch(run_id, params=[Param("optimizer.autoencoder.lr", "0.001")])
        self.client.log_text(run_id, config.to_yaml(), Artifact.CONFIG)
        if weights and outcome == "completed":
            self.client.log_artifact(run_id, str(self.trained.weights))
            digest = hashlib.sha256(self.trained.weights.read_bytes()).hexdigest()
            self.client.set_tag(run_id, Tag.MODEL_SHA, digest)
        self.client.set_terminated(run_id, "FINISHED")
        return run_id

    def tag(self, run_id: str, **tags: str) -> None:
        for key, value in tags.items():
            self.client.set_tag(run_id, key, value)

    def confirm(self, run_id: str, seeds: str = "3 of 3 seeds", **values: tuple[float, float]) -> None:
        """Confirms a trial with (mean, half-width) of each objective."""
        for key, (mean, half_width) in values.items():
            self.client.log_metric(run_id, f"confirmed/val/{key}", mean)
            self.client.log_metric(run_id, f"confirmed_half_width/val/{key}", half_width)
        self.client.set_tag(run_id, Tag.CONFIRMED, seeds)

    def promote(self, target: str, said: list[str] | None = None, **wish: Any) -> Promotion:
        lines = [] if said is None else said
        voice = Voice(lines.append, lambda _: nullcontext(), lambda *_: nullcontext(lambda *_: None))
        return promote(self.client, Wish(target, **wish), voice)


def copy_store(template: Path, directory: Path) -> str:
    """URI of a copy of a SQLite store, whose artifacts stay where the first one has them."""
    shutil.copy(template, directory / "mlflow.db")
    return f"sqlite:///{directory / 'mlflow.db'}"


def dump(uri: str) -> list[str]:
    """All that a SQLite store holds."""
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as db:
        return list(db.iterdump())


def failing(planted: Planted, target: str = "toy", **wish: Any) -> dict[str, str]:
    """Gates that did not pass, with their words; nothing was moved or registered."""
    before = dump(planted.uri)
    promoted = planted.promote(target, **wish)
    assert promoted.version is None
    assert dump(planted.uri) == before
    return {gate.name: gate.words for gate in promoted.failed}
