"""A sweep of thousands of trials in MLflow: how long it takes there, how large journal and database become, and how
long MLflow needs to show it. What it wrote stays, to be looked at with `vaegan ui`."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from methods import changed, random_point
from page import Section
from recording import OBJECTIVES, SWEEP
from setups import OUTPUT

from search.config.load import load_sweep
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.names import Outcome
from search.tracking.writer import MlflowWriter
from vaegan_core.evaluation import Evaluation, Point

DIRECTORY = OUTPUT / "many"
CURVES, POINTS = 30, 30
STEPS = (90, 180, 270)
BASELINES = {"mean_color_mse": 0.1, "mean_color_layout_fd": 900.0, "floor_layout_fd": 50.0}
SHOWN = 50


def measure(num_trials: int, say: Callable[[str], None]) -> Section:
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    sweep = changed(load_sweep(SWEEP, ["name=many"]), budget={"trials": num_trials})
    journal = make_journal(sweep, num_trials)
    say(f"runs: {num_trials} trials in the journal")
    uri = f"sqlite:///{DIRECTORY.resolve()}/mlflow.db"
    begun = time.perf_counter()
    writer = MlflowWriter(sweep, journal, DIRECTORY, uri)
    writer.finish("")
    delivered = time.perf_counter() - begun
    say(f"runs: delivered in {delivered:.0f} s; look at it: MLFLOW_TRACKING_URI={uri} vaegan ui many")
    experiment = [writer.experiment_id]
    calls = {
        "parent run": lambda: writer.client.get_run(writer.parent_id),
        "newest 100 runs": lambda: writer.client.search_runs(experiment, max_results=100),
        "100 by metric, of one outcome": lambda: writer.client.search_runs(
            experiment,
            "tags.outcome = 'completed'",
            order_by=[f"metrics.`final/{OBJECTIVES[0]}` ASC"],
            max_results=100,
        ),
        f"one curve of {SHOWN} runs": lambda: [
            writer.client.get_metric_history(str(trial.run_id), "train/curve-0") for trial in journal.trials()[:SHOWN]
        ],
    }
    rows = [["into MLflow", f"{delivered:.0f} s"]]
    for name, call in calls.items():
        start = time.perf_counter()
        call()
        rows.append([name, f"{time.perf_counter() - start:.2f} s"])
    points = int(journal.meta(Meta.POINTS_CURSOR))
    journal.close()
    rows += [[name, f"{size(DIRECTORY / name) / 1e6:.0f} MB"] for name in ("journal.db", "mlflow.db")]
    return Section(
        f"{num_trials:,} trials with {CURVES} curves of {POINTS} points",
        ["", ""],
        rows,
        [f"{points:,} points (trials that were stopped have fewer), on SQLite, without pictures."],
    )


def make_journal(sweep: Sweep, num_trials: int) -> Journal:
    journal = Journal.create(
        DIRECTORY / "journal.db",
        id=f"many-{time.time():.0f}",
        sweep=sweep.config.to_yaml(),
        frames="none",
        baselines=json.dumps(BASELINES),
    )
    rng = np.random.default_rng(0)
    for number in range(num_trials):
        params = random_point(sweep.space, rng)
        journal.add_trial(number, params, sweep.trial(params).to_yaml(), "random")
        journal.start_attempt(number)
        journal.start_trial(number, 1, sweep.trial(params).to_yaml(), {"host": "here", "device": "cpu"})
        outcome = (Outcome.COMPLETED, Outcome.PRUNED, Outcome.PRUNED, Outcome.DIVERGED)[rng.integers(4)]
        for step in STEPS[: None if outcome == Outcome.COMPLETED else 2]:
            journal.add_evaluation(number, evaluation(number, step, rng))
        journal.end_trial(number, outcome, "" if outcome == Outcome.COMPLETED else f"{outcome} for this benchmark")
    return journal


def evaluation(number: int, step: int, rng: np.random.Generator) -> Evaluation:
    metrics = {OBJECTIVES[0]: 0.03 + 0.1 * rng.random(), OBJECTIVES[1]: 400 + 600 * rng.random()}
    steps = np.linspace(step - STEPS[0] + 9, step, POINTS // len(STEPS)).astype(int).tolist()
    curves = [*metrics, *(f"train/curve-{index}" for index in range(CURVES - len(metrics)))]
    points = [
        Point(key, at, metrics.get(key, 1.0) * (1 + math.exp(-at / 50) + 0.1 * rng.random()), 1_790_000_000_000 + at)
        for key in curves
        for at in steps
    ]
    return Evaluation(step, "running", metrics, tuple(points), {}, "", {"kl_explosion": bool(number % 3)})


def size(path: Path) -> int:
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))
