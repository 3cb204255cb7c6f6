"""`vaegan report` on a planted store: numbers as JSON and CSV, several sweeps, and what it says of wrong names."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from planted_store import Plant, plant

from search.cli import main
from search.tracking.evaluations import read_evaluations
from search.tracking.reader import find_sweep
from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('tables')}/mlflow.db"
    for name, trials in (("planted", 28), ("other", 6), ("empty", 0)):
        plant(uri, Plant(name, trials, pictures=False))
    return uri


@pytest.fixture
def report(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command in an empty folder; returns its exit code and what it printed."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vaegan", "report", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def test_json_and_csv_give_the_numbers_that_mlflow_has(report: Any, uri: str, tmp_path: Path) -> None:
    code, printed, _ = report("planted", "other", "--json", "-", "--csv", "trials.csv")
    assert code == 0
    assert not list(tmp_path.rglob("*.html")), "nobody asked for a page"
    client = MlflowClient(uri)
    data = json.loads(printed)
    assert [each["name"] for each in data["sweeps"]] == ["planted", "other"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "trials.csv").read_text())))
    assert len(rows) == 34
    for given in data["sweeps"]:
        sweep = find_sweep(client, given["name"])
        runs = {trial.number: trial for trial in sweep.trials}
        assert given["trials"][0]["number"] == given["recommended"] == sweep.ranked[0].number
        assert given["front"] == [t.number for t in sweep.completed if t.tags["on_front"] == "true"]
        for trial in given["trials"]:
            run = runs[trial["number"]]
            assert (trial["run_id"], trial["outcome"], trial["params"]) == (run.run_id, run.outcome, run.params)
            assert trial["final"] == {key: value for key, value in run.final.items() if key != "step"}
        for row in (row for row in rows if row["sweep"] == sweep.name):
            run = runs[int(row["number"])]
            assert (row["run_id"], row["outcome"]) == (run.run_id, run.outcome)
            for key in (PIXEL_MSE, LAYOUT_FD):
                assert row[key] == ("" if key not in run.final else str(run.final[key]))
            assert {name: row[name] for name in run.params} == run.params
        table, evaluations = given["evaluations"], read_evaluations(client, sweep)
        assert table["trial"] == evaluations.trial.tolist()
        assert len(table[PIXEL_MSE]) == len(table["step"]) == len(evaluations)
        assert {check["name"] for check in given["checks"]} >= {"failures", "early stopping"}
        assert bool(given["importances"]) == (sweep.name == "planted"), "six trials say nothing of importance"
        assert given["words"]


def test_the_page_becomes_an_artifact_unless_told_otherwise(report: Any, uri: str, tmp_path: Path) -> None:
    client = MlflowClient(uri)
    run_id = find_sweep(client, "other").run_id
    code, printed, _ = report("other", "--no-upload", "-o", "here.html")
    assert code == 0
    assert (tmp_path / "here.html").is_file()
    assert "report.html" not in {item.path for item in client.list_artifacts(run_id)}
    code, printed, _ = report("other")
    assert "Report: runs/sweeps/other/report.html" in printed
    assert f"artifact report.html of run {run_id}" in printed
    page = (tmp_path / "runs" / "sweeps" / "other" / "report.html").read_bytes()
    assert Path(client.download_artifacts(run_id, "report.html")).read_bytes() == page


def test_several_sweeps_share_a_page_that_belongs_to_none(report: Any, tmp_path: Path) -> None:
    code, printed, _ = report("planted", "other", "planted")
    assert code == 0
    assert "In MLflow" not in printed
    assert (tmp_path / "runs" / "sweeps" / "planted+other+planted" / "report.html").is_file()


def test_a_sweep_without_trials_has_a_page_and_tables(report: Any) -> None:
    code, printed, _ = report("empty", "--json", "-")
    assert code == 0
    found = json.loads(printed)["sweeps"][0]
    assert found["trials"] == []
    assert found["recommended"] is None
    code, printed, _ = report("empty", "--csv", "-")
    assert printed.startswith("sweep,number,run_id,outcome,")
    assert report("empty")[0] == 0


def test_every_wrong_name_is_named_with_the_nearest_and_nothing_is_written(report: Any, tmp_path: Path) -> None:
    code, _, wrong = report("plantd", "planted", "othr", "--csv", "x.csv")
    assert code == 2
    assert "no sweep named plantd" in wrong
    assert "did you mean planted?" in wrong
    assert "did you mean other?" in wrong
    assert list(tmp_path.iterdir()) == []
    code, _, wrong = report("planted", "--json", "same", "--csv", "same")
    assert code == 2
    assert "--json and --csv must not write to the same file, but got same" in wrong
    code, _, wrong = report("planted", "--json", "./same", "--csv", "same", "-o", "../" + tmp_path.name + "/same")
    assert code == 2
    assert f"--output and --json must not write to the same file, but got ../{tmp_path.name}/same and ./same" in wrong
    assert list(tmp_path.iterdir()) == []
    assert report("planted", "--json", ".")[0] == 2
