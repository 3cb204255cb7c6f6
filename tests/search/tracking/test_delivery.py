"""What reaches MLflow, and how often, when servers refuse, stall, restart or forget to answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from delivered import (
    NUM_POINTS,
    STEPS,
    assert_delivered,
    delivering,
    make_sweep_directory,
    open_journal,
    png,
    report,
    runs_of,
    write,
)
from fault_proxy import FaultProxy
from mlflow import MlflowClient
from servers import MlflowServer

from search.journal.meta import Meta
from search.journal.outbox import Outbox
from search.names import Kind
from search.tracking.errors import explain, is_refusal, status_of
from search.tracking.images import log_png
from search.tracking.tracker import Tracker


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("search.tracking.delivery.LONGEST_WAIT_SECONDS", 0.5)
    monkeypatch.setattr("search.tracking.delivery.IDLE_SECONDS", 0.1)


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


@pytest.fixture
def proxy(sqlite_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(sqlite_server.uri) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
        yield proxy


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_is_delivered_again_from_the_start_changes_nothing(tmp_path: Path) -> None:
    directory, uri = make_sweep_directory(tmp_path, "again"), f"sqlite:///{tmp_path}/mlflow.db"
    write(directory, uri).deliver()
    journal = open_journal(directory)
    journal.set_meta(Meta.POINTS_CURSOR, "0")
    journal.set_meta(Meta.IMAGES_CURSOR, "0")
    journal.set_meta(Meta.PARENT_RUN_ID, "")
    journal.db.execute("UPDATE trials SET run_id = NULL, synced = '', files_sent = 0")
    for number, step in enumerate((*STEPS, *STEPS)):
        journal.db.execute("UPDATE images SET png = ? WHERE id = ?", (png(step), number + 1))
    write(directory, uri).finish("")
    assert_delivered(directory, MlflowClient(uri), "again")


def test_pictures_leave_the_journal_once_mlflow_has_them(tmp_path: Path) -> None:
    directory = make_sweep_directory(tmp_path, "pictures")
    journal = open_journal(directory)
    assert len(Outbox(journal).images_after(0, 100)) == 2 * len(STEPS)
    write(directory, f"sqlite:///{tmp_path}/mlflow.db").deliver()
    assert Outbox(journal).images_after(0, 100) == []


def test_a_picture_gets_the_names_that_mlflow_gives_its_own(tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    location = (tmp_path / "artifacts").as_uri()
    run_id = client.create_run(client.create_experiment("names", artifact_location=location)).info.run_id
    from PIL import Image

    client.log_image(run_id, Image.new("RGB", (32, 16)), key="of/mlflow", step=3, timestamp=7, synchronous=True)
    theirs = client.list_artifacts(run_id, "images")
    log_png(client, run_id, png(1), "of/mlflow", 3, 7)
    names_of_all = [Path(item.path).name for item in client.list_artifacts(run_id, "images")]
    stems = {name.rsplit("+", 1)[0] if "compressed" not in name else name.rsplit("+", 2)[0] for name in names_of_all}
    assert stems == {"of~mlflow+step+3+timestamp+7"}
    assert len(names_of_all) == 2 * len(theirs) == 4
    assert sorted(name.rsplit(".")[-1] for name in names_of_all) == ["png", "png", "webp", "webp"]
    log_png(client, run_id, png(1), "of/mlflow", 3, 7)
    assert len(client.list_artifacts(run_id, "images")) == 4, "logging it again must overwrite it"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 502, 503])
def test_a_server_that_refuses_everything_is_said_once_and_loses_nothing(
    status: int, tmp_path: Path, experiment: str, proxy: FaultProxy
) -> None:
    directory, said = make_sweep_directory(tmp_path, experiment), list[str]()
    proxy.answer(status)
    with delivering(directory, said):
        wait_for(lambda: sum(proxy.counts.values()) >= 3 and len(said) > 0)
        assert len(said) == 1
        assert "Training goes on" in said[0]
        proxy.pass_on()
        wait_for(lambda: len(said) == 2)
    assert len(said) == 2
    assert_delivered(directory, MlflowClient(proxy.uri), experiment)


@pytest.mark.parametrize("status", [400, 413, 500])
def test_the_same_in_the_middle_of_a_delivery(status: int, tmp_path: Path, experiment: str, proxy: FaultProxy) -> None:
    directory, said = make_sweep_directory(tmp_path, experiment), list[str]()
    with delivering(directory, said):
        wait_for(lambda: Outbox(open_journal(directory)).undelivered() == 0)
        proxy.answer(status)
        journal = open_journal(directory)
        for step in (160, 200):
            journal.add_evaluation(1, report(1, step))
        wait_for(lambda: len(said) == 1)
        assert Outbox(journal).undelivered() == NUM_POINTS // 3 * 2
        proxy.pass_on()
    assert Outbox(journal).undelivered() == 0
    assert Outbox(journal).refused() == []


def test_a_stalling_server_and_one_that_forgets_to_answer_get_everything_once(
    tmp_path: Path, experiment: str, proxy: FaultProxy
) -> None:
    directory, said = make_sweep_directory(tmp_path, experiment), list[str]()
    proxy.drop_after()
    with delivering(directory, said):
        wait_for(lambda: sum(proxy.counts.values()) >= 3)
        proxy.stall(3.0)  # each call fails for the client, and is carried out a second later
        seen = sum(proxy.counts.values())
        wait_for(lambda: sum(proxy.counts.values()) >= seen + 3)
        proxy.pass_on()
    assert_delivered(directory, MlflowClient(proxy.uri), experiment)


def test_runs_whose_making_was_not_answered_are_not_made_twice(
    tmp_path: Path, experiment: str, proxy: FaultProxy
) -> None:
    directory, said = make_sweep_directory(tmp_path, experiment, num_trials=4), list[str]()
    proxy.drop_after(lambda request: request.path.endswith("runs/create"))
    with delivering(directory, said):
        wait_for(lambda: len(said) == 1)
        wait_for(lambda: all(trial.run_id for trial in open_journal(directory).trials()))
        proxy.pass_on()
    assert_delivered(directory, MlflowClient(proxy.uri), experiment)


def test_a_run_that_a_slow_server_made_late_is_deleted(tmp_path: Path) -> None:
    directory, uri = make_sweep_directory(tmp_path, "late"), f"sqlite:///{tmp_path}/mlflow.db"
    writer = write(directory, uri)
    writer.deliver()
    first = runs_of(writer.client, "late")[0]
    writer.client.create_run(first.info.experiment_id, tags=first.data.tags)
    writer.journal.set_meta(Meta.MAYBE_DUPLICATES, "yes")
    writer.finish("")
    assert_delivered(directory, writer.client, "late")


def test_a_run_of_another_trial_that_a_lost_journal_had_drawn_under_that_number_is_deleted(tmp_path: Path) -> None:
    lost, uri = make_sweep_directory(tmp_path / "lost", "lost"), f"sqlite:///{tmp_path}/mlflow.db"
    writer = write(lost, uri)
    writer.deliver()
    writer.client.log_param(runs_of(writer.client, "lost")[1].info.run_id, "loss.feature.recon", "0.3")
    restored = make_sweep_directory(tmp_path / "restored", "lost")
    write(restored, uri).finish("")
    assert len(runs_of(writer.client, "lost")) == 2
    first, second = open_journal(restored).trials()
    assert first.run_id == open_journal(lost).trial(0).run_id
    assert second.run_id != open_journal(lost).trial(1).run_id


def test_what_is_too_large_goes_in_smaller_calls(tmp_path: Path, experiment: str, proxy: FaultProxy) -> None:
    directory, said = make_sweep_directory(tmp_path, experiment), list[str]()
    proxy.answer(413, lambda request: len(request.body) > 2500)
    with delivering(directory, said):
        pass
    refused = {record.kind for record in Outbox(open_journal(directory)).refused()}
    assert "environment.txt" in refused
    assert "point" not in refused
    assert f"rejected the {sorted(refused)[0]} of the sweep" in said[0]
    proxy.pass_on()
    with delivering(directory, said):
        pass
    assert_delivered(directory, MlflowClient(proxy.uri), experiment)


def test_a_point_that_the_server_refuses_is_set_aside_named_and_brought_later(
    tmp_path: Path, experiment: str, proxy: FaultProxy
) -> None:
    directory, said = make_sweep_directory(tmp_path, experiment), list[str]()
    proxy.answer(400, lambda request: b'"train/kl"' in request.body and b'"step": 84' in request.body)
    with delivering(directory, said):
        pass
    journal, client = open_journal(directory), MlflowClient(proxy.uri)
    refused = Outbox(journal).refused()
    assert [record.what for record in refused] == ["train/kl of trial 0 at step 84", "train/kl of trial 1 at step 84"]
    assert "rejected train/kl of trial 0 at step 84" in said[0]
    assert len(said) == 1
    for run in runs_of(client, experiment):
        assert len(client.get_metric_history(run.info.run_id, "train/kl")) == 29
        assert len(client.get_metric_history(run.info.run_id, "train/pixel")) == 30
    proxy.pass_on()
    with delivering(directory, said):
        pass
    assert_delivered(directory, client, experiment)


def test_a_run_that_a_person_deleted_takes_nothing_and_holds_up_nothing(
    tmp_path: Path, experiment: str, proxy: FaultProxy
) -> None:
    directory, said = make_sweep_directory(tmp_path, experiment), list[str]()
    journal, client = open_journal(directory), MlflowClient(proxy.uri)
    with delivering(directory, said):
        wait_for(lambda: Outbox(journal).undelivered() == 0)
        client.delete_run(str(journal.trial(0).run_id))
        for number in (0, 1):
            journal.add_evaluation(number, report(number, 160))
        wait_for(lambda: Outbox(journal).undelivered() == 0)
    assert {record.trial for record in Outbox(journal).refused()} == {0}
    assert "point" in {record.kind for record in Outbox(journal).refused()}
    assert len(client.get_metric_history(str(journal.trial(1).run_id), "train/kl")) == 40


def test_curves_arrive_while_files_cannot(tmp_path: Path, experiment: str, proxy: FaultProxy) -> None:
    directory, said = make_sweep_directory(tmp_path, experiment), list[str]()
    proxy.answer(500, lambda request: "mlflow-artifacts" in request.path)
    with delivering(directory, said):
        wait_for(lambda: Outbox(open_journal(directory)).undelivered() == 0)
        wait_for(lambda: len(said) == 1)
        client = MlflowClient(proxy.uri)
        run = runs_of(client, experiment)[0]
        assert len(client.get_metric_history(run.info.run_id, "train/kl")) == 30
        assert run.info.status == "FINISHED"
        assert run.data.params == {"optimizer.autoencoder.lr": "0.001"}
        proxy.pass_on()
    assert_delivered(directory, client, experiment)


@pytest.mark.parametrize("server", ["postgres_server", "s3_server", "s3_direct_server"])
def test_every_sort_of_server_gets_everything_once(
    server: str, tmp_path: Path, experiment: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = request.getfixturevalue(server).uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    if server == "s3_direct_server":
        for name, value in request.getfixturevalue("s3").environment.items():
            monkeypatch.setenv(name, value)
    directory, said = make_sweep_directory(tmp_path, experiment), list[str]()
    with delivering(directory, said):
        pass
    assert said == []
    assert_delivered(directory, MlflowClient(uri), experiment)


def test_a_server_with_passwords_and_that_none_of_them_is_written_anywhere(
    tmp_path: Path, experiment: str, auth_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert auth_server.user
    assert auth_server.password
    monkeypatch.setenv("MLFLOW_TRACKING_URI", auth_server.uri)
    directory, said = make_sweep_directory(tmp_path, experiment), list[str]()
    with delivering(directory, said):
        wait_for(lambda: len(said) == 1)
        assert "MLFLOW_TRACKING_USERNAME" in said[0]
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", auth_server.user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", auth_server.password)
    client = MlflowClient(auth_server.uri)
    assert_delivered(directory, client, experiment)
    text = "".join(said) + "".join(str(run.to_dictionary()) for run in runs_of(client, experiment))
    text += str([run.to_dictionary() for run in runs_of(client, experiment, Kind.SWEEP)])
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert auth_server.password not in text
    assert auth_server.password.encode() not in stored


def test_a_password_in_the_uri_is_never_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:hunter22@127.0.0.1:9")
    directory, said = make_sweep_directory(tmp_path, "said"), list[str]()
    tracker = Tracker(directory, said.append)
    tracker.start()
    wait_for(lambda: len(said) == 1)
    assert not tracker.close(0.5)
    assert "hunter22" not in said[0]
    assert "127.0.0.1:9" in said[0]
    assert b"hunter22" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_delivery_runs_no_file_of_the_folder_it_is_started_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numbers.py").write_text("raise SystemExit('a script of the user, not a module')")
    directory, said = make_sweep_directory(tmp_path, "beside"), list[str]()
    tracker = Tracker(directory, said.append)
    tracker.start()
    assert tracker.close(60)
    assert said == []


def test_the_process_that_delivers_may_be_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr("search.tracking.tracker.RESTART_SECONDS", 0.1)
    directory, said = make_sweep_directory(tmp_path, "killed"), list[str]()
    tracker = Tracker(directory, said.append)
    tracker.start()
    journal = open_journal(directory)
    wait_for(lambda: Outbox(journal).undelivered() == 0, 60)
    assert tracker._process
    tracker._process.kill()
    wait_for(lambda: len(said) == 1)
    journal.add_evaluation(1, report(1, 160))
    assert tracker.close(60)
    assert "another one takes over" in said[0]
    assert Outbox(journal).undelivered() == 0
    assert len(MlflowClient(uri).get_metric_history(str(journal.trial(1).run_id), "train/kl")) == 40


def test_a_second_attempt_is_tagged_with_where_it_began_and_what_came_out_different(tmp_path: Path) -> None:
    directory, uri = make_sweep_directory(tmp_path, "attempts"), f"sqlite:///{tmp_path}/mlflow.db"
    journal = open_journal(directory)
    again = report(1, 120)
    moved = [p._replace(value=p.value + 0.5) if (p.key, p.step) == ("train/kl", 100) else p for p in again.points]
    noise = [p._replace(key=f"system/{p.key}", value=p.value) for p in again.points[:2]]
    for attempt, points in ((2, again.points), (3, (*moved, *noise))):
        assert journal.start_attempt(1) == attempt
        journal.start_trial(1, attempt, "trial: 1\n", {"host": "h", "device": "d"}, from_step=80)
        journal.add_evaluation(1, type(again)(120, "running", again.metrics, tuple(points)), attempt)
    writer = write(directory, uri)
    writer.deliver()
    once, thrice = runs_of(writer.client, "attempts")
    assert "attempts" not in once.data.tags
    assert thrice.data.tags["attempts"] == "3"
    assert thrice.data.tags["resumed_at"] == "80, 80"
    assert thrice.data.tags["mismatch"].startswith("1 points; the first: train/kl at step 100: ")
    history = writer.client.get_metric_history(thrice.info.run_id, "train/kl")
    assert len(history) == 30, "what came first stays"


def test_an_error_without_a_status_is_no_refusal() -> None:
    assert status_of(OSError("disk")) is None
    assert not is_refusal(OSError("disk"))
    assert explain(ConnectionError("http://a:secret@b refused")) == "ConnectionError: http://…@b refused"


def test_the_description_of_the_sweep_is_renewed_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.tracking.results.SUMMARY_SECONDS", 0.0)
    monkeypatch.setattr("search.tracking.results.SUMMARY_SHARE", 1e9)
    directory = make_sweep_directory(tmp_path, "described", num_trials=3)
    writer = write(directory, f"sqlite:///{tmp_path}/mlflow.db")

    def description() -> str:
        return str(writer.client.get_run(writer.parent_id).data.tags["mlflow.note.content"])

    writer.deliver()
    assert "**toy**: running. 3 of 3 trials: 1 completed." in description()
    assert "| 0 | 0.1083 | 5 | yes |" in description()
    assert "- `optimizer.autoencoder.lr`: 0.0001 to 0.01 on a log scale" in description()
    writer.journal.end_trial(1, "completed")
    writer.deliver()
    assert "2 completed" in description()
    writer.finish("interrupted")
    assert "**toy**: stopped early: interrupted." in description()
    ended = writer.client.get_metric_history(writer.parent_id, "sweep/hypervolume")
    assert [point.step for point in ended] == [1, 2]
    assert writer.client.get_run(writer.parent_id).info.status == "KILLED"
