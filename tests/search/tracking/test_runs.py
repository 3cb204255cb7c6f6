"""Runs of sweeps, trials, trainings and reruns, all made by one maker."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from trials import tiny

from search.names import Kind
from search.provenance import describe_environment
from search.tracking.client import directory_name, ensure_experiment
from search.tracking.reader import read_config
from search.tracking.runs import NewRun, best_so_far, create_run, final_values, search_all, sweep_runs_query
from search.tracking.single_run import end_run, open_rerun, open_training
from vaegan_core.evaluation import PIXEL_MSE, SSIM

MACHINE = {"host": "h", "device": "d", "torch": "2"}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return MlflowClient(uri)


def test_a_training_run_has_machine_and_state_and_a_sweeps_own_run_has_neither() -> None:
    sweep = NewRun(Kind.SWEEP, "toy", more={"objectives": "a"})
    assert sweep.tags["vaegan.kind"] == "sweep"
    assert sweep.tags["objectives"] == "a"
    assert not {"host", "device", "outcome", "mlflow.loggedImages", "mlflow.parentRunId"} & set(sweep.tags)
    trial = NewRun(Kind.TRIAL, "toy-000", environment=MACHINE, parent="p", more={"outcome": "paused"})
    assert (trial.tags["host"], trial.tags["device"], trial.tags["mlflow.parentRunId"]) == ("h", "d", "p")
    assert trial.tags["mlflow.loggedImages"] == "True"
    assert trial.tags["outcome"] == "paused", "its own tags win"
    assert trial.tags["torch"] == "2"
    assert "python" not in trial.tags, "an attempt of an earlier version did not say"


def test_runs_are_found_by_sweep_kind_and_trial(client: MlflowClient) -> None:
    experiment = ensure_experiment(client, "runs")
    made = {
        (sweep, kind, trial): create_run(
            client, experiment, NewRun(kind, "r", MACHINE, more={"vaegan.sweep": sweep, "vaegan.trial": str(trial)})
        )
        for sweep in ("a", "b")
        for kind in (Kind.TRIAL, Kind.REPLICATE)
        for trial in (1, 11)
    }

    def ids(query: str) -> set[str]:
        return {run.info.run_id for run in search_all(client, experiment, query)}

    assert ids(sweep_runs_query("a", Kind.TRIAL)) == {made["a", Kind.TRIAL, 1], made["a", Kind.TRIAL, 11]}
    assert ids(sweep_runs_query("b", Kind.REPLICATE, 1)) == {made["b", Kind.REPLICATE, 1]}
    assert ids(sweep_runs_query("c", Kind.TRIAL)) == set()


def test_a_training_keeps_its_run_and_a_rerun_lies_below_its_trial(client: MlflowClient, tmp_path: Path) -> None:
    config = tiny()
    environment = describe_environment(config)
    run_id = open_training(client, tmp_path / "out", config, environment, "f" * 16)
    end_run(client, run_id, "interrupted")
    assert client.get_run(run_id).info.status == "KILLED"
    assert open_training(client, tmp_path / "out", config, environment, "f" * 16) == run_id
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("RUNNING", "out")
    assert (run.data.tags["vaegan.kind"], run.data.tags["frames"]) == ("trial", "f" * 16)
    assert run.data.tags["torch"]
    client.log_param(run_id, "a.b", "1")
    again = client.get_run(open_rerun(client, run_id, config))
    assert (again.data.tags["vaegan.kind"], again.data.tags["mlflow.parentRunId"]) == ("rerun", run_id)
    assert again.info.run_name == "out · rerun"
    assert again.data.tags["frames"] == "f" * 16
    assert again.data.params == {"a.b": "1"}
    assert read_config(client, again.info.run_id) == config
    end_run(client, again.info.run_id, "completed")
    ended = client.get_run(again.info.run_id)
    assert (ended.info.status, ended.data.tags["outcome"]) == ("FINISHED", "completed")


def test_the_best_so_far_is_a_curve_and_none_where_nothing_is_better() -> None:
    evaluations = {
        80: {PIXEL_MSE: 0.1, SSIM: 0.7},
        40: {PIXEL_MSE: 0.2, SSIM: 0.5, "val/kl": 1.0},
        120: {PIXEL_MSE: 0.3, SSIM: 0.6},
    }
    assert best_so_far(PIXEL_MSE, evaluations) == {40: 0.2, 80: 0.1, 120: 0.1}
    assert best_so_far(SSIM, evaluations) == {40: 0.5, 80: 0.7, 120: 0.7}
    assert best_so_far("val/kl", evaluations) == best_so_far("val/unknown", evaluations) == {}


def test_best_values_are_curves_of_the_objectives_alone_because_mlflow_shows_them_first() -> None:
    evaluations = {40: {PIXEL_MSE: 0.1, SSIM: 0.7}, 80: {PIXEL_MSE: 0.2, SSIM: 0.5}}
    values = [(each.key, each.value, each.step) for each in final_values(evaluations, [PIXEL_MSE], 80, 9)]
    assert values == [
        ("final/step", 80.0, 80),
        (f"final/{PIXEL_MSE}", 0.2, 80),
        (f"final/{SSIM}", 0.5, 80),
        (f"best/{PIXEL_MSE}", 0.1, 40),
        (f"best/{PIXEL_MSE}", 0.1, 80),
    ]
    assert [each.key for each in final_values({}, [PIXEL_MSE], 0, 9)] == ["final/step"]


@pytest.mark.parametrize(
    "name", ["plain name-1.0", "../../outside", "/Shared/name", "..", "a?b#c", "x" * 300, "\u00e4\u6f22"]
)
def test_artifacts_of_an_experiment_lie_beside_the_database_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    place = tmp_path / "runs"
    directory = place / "artifacts" / directory_name(name)
    assert directory.resolve().parent == place / "artifacts"
    directory.mkdir(parents=True)
    assert directory_name("plain name-1.0") == "plain name-1.0", "as it was before"
    assert directory_name(f"{name}/") != directory.name
