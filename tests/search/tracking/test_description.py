"""What MLflow's pages show first: names of runs that say something, and a description that leads on."""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from pathlib import Path

from delivered import make_sweep_directory, open_journal, write
from mlflow import MlflowClient
from sweeps import make_sweep, trial_data

from search.journal.records import TrialRecord
from search.names import Outcome
from search.tracking.description import LONGEST_NAME, run_name
from search.tracking.reader import find_sweep

RECORD = TrialRecord(
    number=17,
    params={
        "optimizer.autoencoder.lr": 0.00123456,
        "model.width": 8,
        "loss.kl.control": "fixed",
        "loss.kl.sigma": 0.25,
    },
    config="",
    origin="tpe",
    created=0.0,
    outcome=Outcome.RUNNING,
    reason="",
    step=0,
    ended=None,
    run_id=None,
    synced="",
    replicate_of=None,
)


def named(**changes: object) -> str:
    return run_name(make_sweep(), dataclasses.replace(RECORD, **changes))


def test_a_run_is_called_after_what_tells_its_trial_from_others() -> None:
    assert named() == "trial 17 · lr 0.0012 · fixed · width 8"
    assert named(origin="point seed-settings") == "trial 17 · seed-settings"
    assert named(params={}) == "trial 17"
    assert named(number=20, replicate_of=17) == "trial 17 again, fresh seed, as trial 20"
    assert len(named(origin=f"point {'x' * 200}")) == LONGEST_NAME


def test_equal_ends_of_names_are_told_apart() -> None:
    space = {"model.encoder.norm": ["none", "batch"], "model.decoder.norm": ["none", "batch"]}
    sweep = make_sweep(space=space, base=trial_data())
    record = dataclasses.replace(RECORD, params={"model.encoder.norm": "none", "model.decoder.norm": "batch"})
    assert run_name(sweep, record) == "trial 17 · encoder.norm none · decoder.norm batch"


def test_the_description_leads_to_report_and_best_trial_once_the_sweep_has_ended(tmp_path: Path) -> None:
    directory, uri = make_sweep_directory(tmp_path, "links"), f"sqlite:///{tmp_path}/mlflow.db"
    writer = write(directory, uri)
    writer.deliver()
    client = MlflowClient(uri)
    sweep = find_sweep(client, "toy")
    note = sweep.tags["mlflow.note.content"]
    assert "report.html" not in note, "it is written at the end"
    key = note.partition("viewStateShareKey=")[2].partition(")")[0]
    view = client.get_experiment(sweep.experiment_id).tags[f"mlflow.sharedViewState.{key}"].removeprefix("deflate;")
    state = json.loads(zlib.decompress(base64.b64decode(view)))
    shown = client.search_runs([sweep.experiment_id], state["searchFilter"], order_by=[f"{state['orderByKey']} ASC"])
    assert {run.info.run_id for run in shown} == {trial.run_id for trial in sweep.trials}
    assert state["selectedColumns"][:2] == ["metrics.`final/val/pixel_mse`", "metrics.`final/val/layout_fd`"]
    writer.finish("")
    writer.journal.close()
    sweep = find_sweep(client, "toy")
    pages = f"#/experiments/{sweep.experiment_id}/runs"
    note = sweep.tags["mlflow.note.content"]
    assert f"[report]({pages}/{sweep.run_id}/artifacts/report.html?workflowType=machine_learning)" in note
    assert f"[trial 0]({pages}/{sweep.trials[0].run_id}?workflowType=machine_learning)" in note
    assert sweep.metrics["sweep/trial_hours"] >= 0
    assert sweep.metrics["sweep/gpu_hours"] == 0
    journal = open_journal(directory)
    names = {client.get_run(str(trial.run_id)).info.run_name for trial in journal.trials()}
    journal.close()
    assert names == {"trial 0 · lr 0.001", "trial 1 · lr 0.002"}
