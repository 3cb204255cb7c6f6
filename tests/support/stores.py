"""The three records of a sweep's trials (journal, Optuna, MLflow), compared value by value."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import optuna
from mlflow import MlflowClient
from optuna.trial import TrialState
from sweep_files import NAME

from search.config.load import parse_sweep
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.names import DERIVED_PREFIXES
from search.strategy.study import STATES, build_study
from search.tracking.reader import SweepRun, find_sweep, read_curve
from vaegan_core.strict_yaml import parse_yaml

STATUS = {"completed": "FINISHED", "pruned": "FINISHED", "diverged": "FINISHED", "failed": "FAILED"}


@dataclass(frozen=True)
class Stores:
    directory: Path
    sweep: Sweep
    journal: Journal
    study: optuna.Study
    client: MlflowClient
    run: SweepRun


def open_stores(directory: Path, name: str = NAME, uri: str | None = None) -> Stores:
    journal = Journal(directory / "runs" / "sweeps" / name / "journal.db")
    sweep = parse_sweep(parse_yaml(journal.meta(Meta.SWEEP)), name)
    client = MlflowClient(uri or f"sqlite:///{directory / 'runs' / 'mlflow.db'}")
    return Stores(directory, sweep, journal, build_study(sweep, journal), client, find_sweep(client, name))


def assert_agreement(stores: Stores) -> None:
    """Every trial exactly once in journal, Optuna and MLflow, with one final state, the same values and every point."""
    records = stores.journal.trials()
    assert [record.number for record in records] == list(range(len(records)))
    drawn = [record for record in records if record.replicate_of is None]
    assert len(drawn) == stores.sweep.config.budget.trials
    assert [trial.number for trial in stores.study.trials] == [record.number for record in records]
    assert [trial.number for trial in stores.run.trials] == [record.number for record in drawn]
    assert stores.client.get_run(stores.run.run_id).info.status == "FINISHED"
    for record in records:
        assert record.outcome in STATUS, f"trial {record.number} is {record.outcome}"
        assert stores.study.trials[record.number].state == STATES[record.outcome] != TrialState.RUNNING
        assert all(attempt.ended is not None for attempt in stores.journal.attempts(record.number))
        assert_same_points(stores.journal, stores.client, record.number)
    for record, run in zip(drawn, stores.run.trials, strict=True):
        optuna_trial = stores.study.trials[record.number]
        assert run.outcome == record.outcome
        assert run.run_id == record.run_id
        assert stores.client.get_run(run.run_id).info.status == STATUS[record.outcome]
        assert run.params == {name: _text(value) for name, value in record.params.items()}
        assert optuna_trial.params == record.params
        if record.outcome == "completed":
            final = stores.journal.evaluations(record.number)[record.step]
            assert record.step == stores.sweep.steps
            assert list(optuna_trial.values) == [final[name] for name in stores.sweep.config.objectives]
            assert {name: run.final[name] for name in final} == final


def assert_same_points(journal: Journal, client: MlflowClient, number: int) -> None:
    """Every point of the journal is in MLflow once, under its own step, with its own value."""
    expected: dict[str, list[tuple[int, float]]] = {}
    run_id = str(journal.trial(number).run_id)
    for point in journal.points(number):
        expected.setdefault(point.key, []).append((point.step, point.value))
    keys = {key for key in client.get_run(run_id).data.metrics if not key.startswith(DERIVED_PREFIXES)}
    assert keys == set(expected)
    for key, points in expected.items():
        curve = [(point.step, point.value) for point in read_curve(client, run_id, key)]
        assert curve == points, f"{key} of trial {number}"


def assert_nothing_wrong_so_far(directory: Path, name: str = NAME) -> None:
    """After an interruption at any moment: no point is in MLflow twice, or differs from the journal's."""
    store = directory / "runs" / "mlflow.db"
    if not store.exists():
        return
    journal = Journal(directory / "runs" / "sweeps" / name / "journal.db")
    numbers = {trial.run_id: trial.number for trial in journal.trials() if trial.run_id}
    expected = {(t, p.key, p.step): p.value for t in numbers.values() for p in journal.points(t)}
    journal.close()
    with closing(sqlite3.connect(store)) as db:
        rows = db.execute("SELECT run_uuid, key, step, value FROM metrics").fetchall()
    points = [(numbers[run], key, step, value) for run, key, step, value in rows if run in numbers]
    curves = [row for row in points if not row[1].startswith(DERIVED_PREFIXES)]
    assert len({row[:3] for row in curves}) == len(curves), "a point is there twice"
    for *where, value in curves:
        assert expected[tuple(where)] == value, where


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
