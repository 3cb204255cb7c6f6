"""A finished sweep in MLflow without a sweep: runs as rows of SQLite and pictures as files, thousands in seconds."""

from __future__ import annotations

import io
import os
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag
from PIL import Image
from sweeps import BASELINES, sweep_data

from search.config.load import parse_sweep
from search.config.sweep import Sweep
from search.names import Artifact, Kind, Outcome, Tag
from search.standings.pareto import fronts
from search.tracking.client import ensure_experiment, open_client
from search.tracking.evaluations import Row, collect, to_parquet
from search.tracking.runs import text_of
from vaegan_core.evaluation import (
    DECODER_GAP,
    EXPOST_GAP,
    FITTED_SAMPLES,
    GAP_FLOOR,
    KL,
    LAYOUT_FD,
    PIXEL_MSE,
    PRIOR_GAP,
    PRIOR_SAMPLES,
    RECONSTRUCTIONS,
    SAMPLES_FD,
)

STEPS = (40, 80, 160, 320, 480)
KINDS = (RECONSTRUCTIONS, FITTED_SAMPLES, PRIOR_SAMPLES)
MIXTURE = {Outcome.COMPLETED: 0.4, Outcome.PRUNED: 0.45, Outcome.DIVERGED: 0.1, Outcome.FAILED: 0.05}
TRAINING = ("train/kl", "train/pixel", "train/discriminator_real")
STARTED = 1_790_000_000_000
REASONS = {
    Outcome.COMPLETED: "",
    Outcome.RUNNING: "",
    Outcome.PRUNED: "rank 5 of 9 at step 160",
    Outcome.DIVERGED: "train/kl is nan at step 91",
    Outcome.FAILED: "RuntimeError: <script>alert('reason')</script>",
}


@dataclass(frozen=True)
class Plant:
    """What is planted."""

    name: str = "planted"
    trials: int = 28
    mixture: Mapping[Outcome, float] = field(default_factory=lambda: MIXTURE)
    """Share of the trials that end so."""
    objectives: tuple[str, ...] = (PIXEL_MSE, LAYOUT_FD)
    pictures: bool = True
    frame: tuple[int, int] = (48, 27)
    """Width and height of a picture's frames."""
    seed: int = 0


def plant(uri: str, what: Plant) -> str:
    """Id of the parent run of a sweep in the SQLite store at `uri`, which is made if it is not there."""
    client = open_client(uri)
    experiment = ensure_experiment(client, "planted")
    changes = {"objectives": list(what.objectives), "budget": {"trials": max(1, what.trials)}}
    sweep = parse_sweep(sweep_data(name=what.name, **changes), what.name)
    sweep_id = uuid.uuid5(uuid.NAMESPACE_OID, what.name).hex
    trials = list(planned(what))
    parent = client.create_run(experiment, STARTED, run_name=what.name)
    _fill_parent(client, parent.info.run_id, sweep, sweep_id, trials)
    client.set_terminated(parent.info.run_id, "FINISHED", STARTED + 1)
    fill(uri, parent.info.run_id, what, trials)
    return str(parent.info.run_id)


def fill(uri: str, parent: str, what: Plant, trials: Sequence[Mapping[str, Any]]) -> None:
    """Adds trials, with their pictures, below the sweep's own run."""
    client = open_client(uri)
    run = client.get_run(parent)
    location = client.get_experiment(run.info.experiment_id).artifact_location
    rows = [_row(trial, what.name, run.data.tags[Tag.SWEEP_ID], parent) for trial in trials]
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database, database:
        _insert(database, rows, int(run.info.experiment_id), location)
    if what.pictures:
        _pictures([row for row in rows if row["steps"]], Path(location.removeprefix("file://")), what)


def planned(what: Plant) -> Iterator[dict[str, Any]]:
    """Parameters, an outcome, and evaluations whose values depend on the learning rate."""
    rng = np.random.default_rng(what.seed)
    outcomes: Sequence[str] = rng.choice(list(what.mixture), what.trials, p=list(what.mixture.values())).tolist()
    for number, outcome in enumerate(outcomes):
        params: dict[str, Any] = {
            "optimizer.autoencoder.lr": float(10 ** rng.uniform(-4, -2)),
            "model.width": int(rng.choice([8, 16])),
            "loss.kl.control": str(rng.choice(["fixed", "capacity"])),
        }
        if params["loss.kl.control"] == "fixed":
            params["loss.kl.sigma"] = float(rng.uniform(0.05, 0.6))
        else:
            params["loss.kl.capacity_max"] = float(rng.uniform(10, 150))
        off = abs(np.log10(params["optimizer.autoencoder.lr"]) + 3)
        early = int(rng.integers(2))
        ended = {Outcome.COMPLETED: 5, Outcome.PRUNED: 3, Outcome.RUNNING: 2}.get(Outcome(outcome), early)
        quality = 0.03 + 0.05 * off + 0.02 * rng.random(), 20 + 40 * rng.random() + 15 * off
        yield {
            "number": number,
            "outcome": Outcome(outcome),
            "params": params,
            "evaluations": {step: _metrics(step, quality, rng) for step in STEPS[:ended]},
        }


def _metrics(step: int, quality: tuple[float, float], rng: np.random.Generator) -> dict[str, float]:
    slow = 1 + 60 / step
    return {
        PIXEL_MSE: quality[0] * slow,
        LAYOUT_FD: quality[1] * slow,
        SAMPLES_FD: 2 * quality[1] * slow + rng.random(),
        PRIOR_GAP: 90.0 * slow,
        EXPOST_GAP: 40.0,
        GAP_FLOOR: 30.0,
        DECODER_GAP: 200 * slow,
        KL: 30 + 20 * rng.random(),
    }


def _fill_parent(client: MlflowClient, run_id: str, sweep: Sweep, sweep_id: str, trials: list[Any]) -> None:
    tags = {
        Tag.KIND: Kind.SWEEP,
        Tag.SWEEP_ID: sweep_id,
        Tag.SWEEP_NAME: sweep.config.name,
        Tag.FRAMES: "f" * 16,
        Tag.OBJECTIVES: ",".join(sweep.config.objectives),
    }
    baselines = {**BASELINES, "floor": 30.0}
    client.log_batch(
        run_id,
        [Metric(f"baseline/{key}", value, STARTED, 0) for key, value in baselines.items()],
        [],
        [RunTag(str(key), str(value)) for key, value in tags.items()],
    )
    client.log_text(run_id, sweep.config.to_yaml(), Artifact.SWEEP)
    write_evaluations(client, run_id, trials)


def write_evaluations(client: MlflowClient, run_id: str, trials: Sequence[Mapping[str, Any]]) -> None:
    """Makes these trials' evaluations the sweep's table."""
    table = collect(
        Row(trial["number"], step, 9.0, "here", None, metrics)
        for trial in trials
        for step, metrics in trial["evaluations"].items()
    )
    folder = Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://"))
    (folder / Artifact.EVALUATIONS).write_bytes(to_parquet(table))


def _row(trial: Any, name: str, sweep_id: str, parent: str) -> dict[str, Any]:
    number, evaluations = trial["number"], trial["evaluations"]
    last = max(evaluations, default=0)
    tags = {
        Tag.KIND: Kind.TRIAL,
        Tag.SWEEP_ID: sweep_id,
        Tag.SWEEP_NAME: name,
        Tag.TRIAL: number,
        Tag.OUTCOME: trial["outcome"],
        Tag.REASON: REASONS[trial["outcome"]],
        Tag.ORIGIN: "point <b>first</b>" if number == 0 else "sampler",
        Tag.FEASIBLE: "true",
        "kl_explosion": str(number % 7 == 3).lower(),
        "mlflow.parentRunId": parent,
        "mlflow.runName": f"{name}-{number:03d}",
        **trial.get("tags", {}),
    }
    final = {f"final/{key}": value for key, value in evaluations.get(last, {}).items()}
    if last:
        final["final/step"] = float(last)
    return {
        "run": uuid.uuid5(uuid.NAMESPACE_OID, f"{sweep_id} {number}").hex,
        "name": f"{name}-{number:03d}",
        "number": number,
        "outcome": trial["outcome"],
        "tags": tags,
        "params": {key: text_of(value) for key, value in trial["params"].items()},
        "metrics": {**final, **dict.fromkeys(TRAINING if last else (), 1.0)},
        "values": [evaluations.get(last, {}).get(key, np.inf) for key in (PIXEL_MSE, LAYOUT_FD)],
        "steps": list(evaluations),
    }


def _insert(database: sqlite3.Connection, rows: list[dict[str, Any]], experiment: int, location: str) -> None:
    completed = [row for row in rows if row["outcome"] == Outcome.COMPLETED]
    if completed:
        for row, level in zip(completed, fronts(np.array([row["values"] for row in completed])), strict=True):
            row["tags"][Tag.ON_FRONT] = str(level == 0).lower()
    many = database.executemany
    many(
        "INSERT INTO runs (run_uuid, name, source_type, user_id, status, start_time, lifecycle_stage, artifact_uri, "
        "experiment_id) VALUES (?, ?, 'UNKNOWN', 'x', 'FINISHED', ?, 'active', ?, ?)",
        [(row["run"], row["name"], STARTED, f"{location}/{row['run']}/artifacts", experiment) for row in rows],
    )
    for table in ("tags", "params"):
        entries = [(str(key), str(value), row["run"]) for row in rows for key, value in row[table].items()]
        many(f"INSERT INTO {table} (key, value, run_uuid) VALUES (?, ?, ?)", entries)
    latest = [(key, value, STARTED, 0, 0, row["run"]) for row in rows for key, value in row["metrics"].items()]
    many("INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)", latest)
    points = [
        (key, 1 + 5 / (step + 1) + 0.01 * (row["number"] % 50), STARTED + step, step, 0, row["run"])
        for row in rows
        for key in TRAINING
        for step in range(0, max(row["steps"], default=0), 20)
    ]
    many("INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)", points)


def _pictures(rows: list[dict[str, Any]], location: Path, what: Plant) -> None:
    """Links to one of a few grids per kind and step; a picture of a later step is sharper."""
    rng = np.random.default_rng(what.seed)
    folder = location / f"grids-{what.name}"
    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        for step in STEPS:
            (folder / f"{kind}-{step}.png").write_bytes(_grid(what.frame, 2 + step // 60, rng))
    for row in rows:
        images = location / row["run"] / "artifacts" / "images"
        images.mkdir(parents=True)
        for kind in KINDS:
            for step in row["steps"]:
                os.link(folder / f"{kind}-{step}.png", images / f"{kind}+step+{step}+timestamp+{STARTED}+x.png")


def _grid(frame: tuple[int, int], detail: int, rng: np.random.Generator) -> bytes:
    """Four rows of eight frames, a white line of one pixel around each."""
    width, height = frame
    sheet = Image.new("RGB", (8 * (width + 1) + 1, 4 * (height + 1) + 1), "white")
    for place in range(32):
        small = Image.fromarray(rng.integers(0, 200, (detail, detail, 3), np.uint8))
        at = (1 + place % 8 * (width + 1), 1 + place // 8 * (height + 1))
        sheet.paste(small.resize(frame, Image.Resampling.BICUBIC), at)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
