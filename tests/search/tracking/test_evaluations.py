"""The table of all evaluations: as the journal has them, in one artifact, and for sweeps that have none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from delivered import STEPS, make_sweep_directory, open_journal, write
from mlflow import MlflowClient

from search.tracking import reader
from search.tracking.evaluations import (
    Evaluations,
    Row,
    collect,
    from_parquet,
    read_evaluations,
    to_parquet,
)
from search.tracking.reader import SweepRun, find_sweep
from search.tracking.results import evaluations_in
from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MlflowClient, SweepRun]:
    folder = tmp_path_factory.mktemp("evaluations")
    directory, uri = make_sweep_directory(folder, "evaluations", num_trials=3), f"sqlite:///{folder}/mlflow.db"
    writer = write(directory, uri)
    writer.deliver()
    writer.journal.close()
    client = MlflowClient(uri)
    return directory, client, find_sweep(client, "toy")


def same(one: Evaluations, other: Evaluations) -> bool:
    return (
        one.trial.tolist() == other.trial.tolist()
        and one.step.tolist() == other.step.tolist()
        and one.host.tolist() == other.host.tolist()
        and one.replicate_of.tolist() == other.replicate_of.tolist()
        and np.array_equal(one.seconds, other.seconds, equal_nan=True)
        and sorted(one.metrics) == sorted(other.metrics)
        and all(np.array_equal(values, other.metrics[key], equal_nan=True) for key, values in one.metrics.items())
    )


def test_a_running_sweep_s_evaluations_come_back_from_one_artifact(
    sent: tuple[Path, MlflowClient, SweepRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, client, sweep = sent
    asked: list[str] = []
    monkeypatch.setattr(client, "get_metric_history", lambda *a: asked.append(str(a)))
    read = read_evaluations(client, sweep)
    journal = open_journal(directory)
    assert same(read, evaluations_in(journal))
    for number in range(3):
        expected = [(step, metrics[LAYOUT_FD]) for step, metrics in journal.evaluations(number).items()]
        assert read.curve(number, LAYOUT_FD) == expected
    journal.close()
    assert read.numbers == [0, 1, 2]
    assert set(read.host.tolist()) == {"h"}
    assert (read.seconds >= 0).all()
    assert read.complete
    assert not asked


def test_a_sweep_of_an_earlier_version_has_the_curves_of_its_best_trials(
    sent: tuple[Path, MlflowClient, SweepRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client, sweep = sent
    monkeypatch.setattr(client, "list_artifacts", lambda *_: [])
    monkeypatch.setattr("search.tracking.evaluations.TRIALS_READ", 1)
    read = read_evaluations(client, sweep)
    assert read.numbers == [0]
    assert not read.complete
    curve = [(point.step, point.value) for point in reader.read_curve(client, sweep.trials[0].run_id, PIXEL_MSE)]
    assert read.curve(0, PIXEL_MSE) == curve
    assert read.curve(1, PIXEL_MSE) == []


def test_replicates_are_told_from_trials_and_gaps_stay_gaps() -> None:
    rows = [
        Row(1, 10, None, "", None, {PIXEL_MSE: 0.5}),
        Row(2, 20, 1.5, "b", 1, {PIXEL_MSE: 0.3, LAYOUT_FD: 7.0}),
        Row(2, 10, 2.5, "a", 1, {LAYOUT_FD: 8.0}),
    ]
    table = from_parquet(to_parquet(collect(rows)))
    assert same(table, collect(rows))
    assert table.numbers == [1]
    assert table.replicates(1) == [2]
    assert table.curve(2, PIXEL_MSE) == [(20, 0.3)]
    assert table.curve(2, LAYOUT_FD) == [(10, 8.0), (20, 7.0)]
    assert table.curve(3, PIXEL_MSE) == []
    nothing = from_parquet(to_parquet(collect([])))
    assert same(nothing, collect([]))
    assert nothing.curve(0, PIXEL_MSE) == []
    assert nothing.numbers == []


def test_the_table_is_sent_again_only_when_there_is_more_and_what_is_damaged_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, uri = make_sweep_directory(tmp_path, "again"), f"sqlite:///{tmp_path}/mlflow.db"
    writer = write(directory, uri)
    tables: list[int] = []
    monkeypatch.setattr("search.tracking.results.evaluations_in", lambda j: tables.append(1) or evaluations_in(j))
    for _ in range(3):
        writer.deliver()
    assert tables == [1]
    writer.results.refresh_evaluations()
    writer.results.finish("")
    assert tables == [1], "nothing was evaluated since"
    sweep = find_sweep(writer.client, "toy")
    assert len(read_evaluations(writer.client, sweep)) == 2 * len(STEPS)
    writer.client.log_text(sweep.run_id, "PAR1 torn", "evaluations.parquet")
    with pytest.raises(ValueError, match=r"evaluations\.parquet is damaged"):
        read_evaluations(writer.client, sweep)
    writer.journal.close()
