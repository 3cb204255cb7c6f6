"""What has arrived in MLflow: trials may wait, runs may be deleted, and the server may be another one."""

from __future__ import annotations

from pathlib import Path

import pytest
from delivered import delivering, make_sweep_directory, open_journal, report, runs_of, write
from mlflow import MlflowClient
from stores import assert_same_points

from search.journal.meta import Meta
from search.journal.outbox import Outbox
from search.journal.records import RungRecord
from search.names import Kind, Tag
from search.names import Outcome as Final
from vaegan_core.evaluation import PIXEL_MSE, Point


@pytest.mark.parametrize("ends_before_it_begins", [False, True])
def test_a_trial_that_waits_for_its_turn_holds_up_no_other(tmp_path: Path, ends_before_it_begins: bool) -> None:
    directory, uri = make_sweep_directory(tmp_path, "waits"), f"sqlite:///{tmp_path}/mlflow.db"
    journal, outbox = open_journal(directory), Outbox(open_journal(directory))
    journal.db.execute("DELETE FROM points")
    journal.add_trial(2, {"optimizer.autoencoder.lr": 0.1}, "trial: 2\n", "random")
    journal.add_points(2, [Point("param/optimizer.autoencoder.lr", 0, 0.1, 1_700_000_000_000)])
    for number in (0, 1):
        journal.add_evaluation(number, report(number, 160))
    write(directory, uri).deliver()
    assert outbox.undelivered() == 1, "the waiting trial's, and no other"
    client = MlflowClient(uri)
    assert len(client.get_metric_history(str(journal.trial(1).run_id), "train/kl")) == 10
    assert journal.trial(2).run_id is None
    if not ends_before_it_begins:
        journal.start_trial(2, journal.start_attempt(2), "trial: 2\n", {"host": "h", "device": "d"})
        write(directory, uri).deliver()
        assert client.get_run(str(journal.trial(2).run_id)).data.tags[Tag.HOST] == "h"
    journal.end_trial(2, Final.FAILED if ends_before_it_begins else Final.PRUNED)
    journal.end_trial(1, Final.INTERRUPTED)
    write(directory, uri).finish("")
    assert outbox.unsent() == []
    run = client.get_run(str(journal.trial(2).run_id))
    assert run.info.status == ("FAILED" if ends_before_it_begins else "FINISHED")
    assert len(client.get_metric_history(run.info.run_id, "param/optimizer.autoencoder.lr")) == 1


@pytest.mark.parametrize("what", ["the sweep's run was deleted", "another server"])
def test_what_mlflow_does_not_have_any_more_is_sent_again(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, uri = make_sweep_directory(tmp_path, "anew"), f"sqlite:///{tmp_path}/mlflow.db"
    journal = open_journal(directory)
    journal.end_trial(1, Final.INTERRUPTED)
    write(directory, uri).finish("")
    before = [trial.run_id for trial in journal.trials()]
    if what == "another server":
        uri = f"sqlite:///{tmp_path}/other.db"
    else:
        MlflowClient(uri).delete_run(journal.meta(Meta.PARENT_RUN_ID))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    said: list[str] = []
    with delivering(directory, said):
        pass
    assert [line for line in said if "not in MLflow" in line and "sent again" in line] == said[:1]
    assert Outbox(journal).unsent() == []
    client = MlflowClient(uri)
    [parent] = runs_of(client, "anew", Kind.SWEEP)
    assert (parent.info.run_id, parent.info.status) == (journal.meta(Meta.PARENT_RUN_ID), "FINISHED")
    runs = runs_of(client, "anew")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {parent.info.run_id}
    assert ([run.info.run_id for run in runs] == before) == (what != "another server"), "those that are there serve on"
    for number in (0, 1):
        assert_same_points(journal, client, number)


def test_a_trial_that_goes_on_after_its_end_has_its_best_so_far_once(tmp_path: Path) -> None:
    directory, uri = make_sweep_directory(tmp_path, "goes-on"), f"sqlite:///{tmp_path}/mlflow.db"
    journal, client = open_journal(directory), MlflowClient(uri)
    for step in (160, 200):
        journal.add_evaluation(1, report(1, step))
        journal.end_trial(1, Final.PRUNED)
        write(directory, uri).finish("")
        journal.take_back(RungRecord(1, 0, step, (0.1,), kept=True))
    curve = client.get_metric_history(str(journal.trial(1).run_id), f"best/{PIXEL_MSE}")
    assert sorted(point.step for point in curve) == [40, 80, 120, 160, 200], "it had those before the first end twice"
