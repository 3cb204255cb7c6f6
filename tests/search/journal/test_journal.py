from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from sweeps import evaluation, make_journal, make_sweep

from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.outbox import Outbox
from search.journal.records import FileKind, RungRecord, SavedRecord
from search.journal.schema import SCHEMA_VERSION
from search.names import Outcome
from search.provenance import code_version
from search.running.driver import deliver, say_what_is_left
from search.terminal import Screen, screen
from search.tracking.runs import diagnosis_tags
from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE, Evaluation, Point


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = make_journal(tmp_path)
    for number in range(3):
        journal.add_trial(number, {"lr": 1e-5 / 3, "width": 8, "kind": "mse"}, "config", "random")
    return journal


def everything(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables."""
    db = sqlite3.connect(path)
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


def test_create_makes_what_open_reads(tmp_path: Path) -> None:
    path = tmp_path / "sweeps" / "a" / "journal.db"
    Journal.create(path, id="x", sweep="y").close()
    journal = Journal(path)
    assert journal.meta(Meta.ID) == "x"
    assert journal.meta("cursor", "0") == "0"
    with pytest.raises(KeyError, match="cursor"):
        journal.meta("cursor")
    journal.set_meta("cursor", "3")
    journal.set_meta("cursor", "4")
    assert journal.meta("cursor", "0") == "4"
    assert journal.trials() == []


def test_create_never_overwrites(journal: Journal) -> None:
    with pytest.raises(FileExistsError):
        Journal.create(journal.path, id="other")
    assert journal.meta(Meta.ID) == "a"
    assert len(journal.trials()) == 3


def test_open_refuses_what_is_missing_or_of_another_version(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no sweep here: .*none\.db does not exist"):
        Journal(tmp_path / "none.db")
    db = sqlite3.connect(journal.path)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    versions = f"has journal version {SCHEMA_VERSION + 1}, but .* reads versions 4 to {SCHEMA_VERSION}; update"
    with pytest.raises(ValueError, match=versions):
        Journal(journal.path)


def test_a_trial_reads_as_it_was_written(journal: Journal) -> None:
    trial = journal.trial(1)
    assert trial == journal.trials()[1]
    assert trial.params == {"lr": 1e-5 / 3, "width": 8, "kind": "mse"}
    assert (trial.outcome, trial.step, trial.ended, trial.run_id, trial.synced) == ("running", 0, None, None, "")
    Outbox(journal).set_run_id(1, "r")
    Outbox(journal).set_synced(journal.trial(1))
    assert (journal.trial(1).run_id, journal.trial(1).synced) == ("r", "running")
    with pytest.raises(sqlite3.IntegrityError):
        journal.add_trial(1, {}, "", "")


# --- Evaluations ------------------------------------------------------------------------------------------------------


def test_the_same_evaluation_twice_is_once(journal: Journal) -> None:
    journal.add_evaluation(0, evaluation(40))
    before = everything(journal.path)
    journal.add_evaluation(0, evaluation(40))
    assert everything(journal.path) == before
    assert journal.evaluations(0) == {40: {PIXEL_MSE: 0.5, LAYOUT_FD: 5.0}}


def test_what_was_reported_first_stays(journal: Journal) -> None:
    journal.add_evaluation(0, evaluation(40, mse=0.5))
    journal.add_evaluation(0, evaluation(80, mse=0.4))
    journal.add_evaluation(0, evaluation(40, mse=0.3))  # Another attempt, from an older checkpoint
    assert {step: metrics[PIXEL_MSE] for step, metrics in journal.evaluations(0).items()} == {40: 0.5, 80: 0.4}
    assert [point.value for point in journal.points(0) if point.key == PIXEL_MSE] == [0.5, 0.4]
    assert journal.trial(0).step == 80


def test_the_diagnoses_are_those_of_the_last_evaluation(journal: Journal) -> None:
    assert journal.diagnoses(0) == {}
    for step, holds in ((80, True), (40, False)):
        journal.add_evaluation(0, replace(evaluation(step), diagnoses={"kl_explosion": holds, "mode_collapse": None}))
    assert journal.diagnoses(0) == {"kl_explosion": True, "mode_collapse": None}
    assert diagnosis_tags(journal.diagnoses(0)) == {"kl_explosion": "true"}


def test_a_diverged_evaluation_has_points_but_no_metrics(journal: Journal) -> None:
    journal.add_evaluation(0, Evaluation(7, "diverged", points=(Point("loss", 5, 3.0, 1),), reason="loss is nan"))
    assert journal.evaluations(0) == {}
    assert journal.points(0) == [Point("loss", 5, 3.0, 1)]
    assert journal.trial(0).step == 7


def test_points_and_images_in_pages(journal: Journal) -> None:
    for step in (40, 80, 120):
        for number in (0, 1):
            journal.add_evaluation(number, evaluation(step))
    points, cursor = [], 0
    while page := Outbox(journal).points_after(cursor, 5):
        assert len(page) <= 5
        points += page
        cursor = page[-1][0]
    assert [row[0] for row in points] == sorted(row[0] for row in points)
    assert len({(trial, point.key, point.step) for _, trial, point in points}) == len(points) == 12
    images = Outbox(journal).images_after(0, 4)
    assert len(images) == 4
    assert (images[0].trial, images[0].key, images[0].step, images[0].png) == (0, "prior_samples", 40, b"png of 40")
    rest = Outbox(journal).images_after(images[-1].id, 4)
    assert [(image.trial, image.step) for image in images + rest] == [(n, s) for s in (40, 80, 120) for n in (0, 1)]
    assert Outbox(journal).images_after(rest[-1].id, 4) == []


# --- Outcomes and attempts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("final", ["completed", "pruned", "diverged", "failed"])
def test_a_final_outcome_is_never_overwritten(journal: Journal, final: str) -> None:
    journal.end_trial(0, final, "first")
    before = journal.trial(0)
    journal.end_trial(0, "interrupted", "second")
    journal.end_trial(0, "completed", "third")
    journal.reopen_trial(0)
    assert journal.trial(0) == before
    assert (before.outcome, before.reason) == (final, "first")
    assert before.ended is not None


def test_an_interrupted_trial_can_be_reopened(journal: Journal) -> None:
    journal.end_trial(0, "interrupted", "stopped at step 40")
    journal.reopen_trial(0)
    assert (journal.outcome(0), journal.trial(0).reason, journal.trial(0).ended) == ("running", "", None)
    journal.end_trial(0, "completed")
    assert journal.outcome(0) == "completed"


def test_attempts_and_failures(journal: Journal) -> None:
    assert journal.environment(0) == {}
    assert [journal.start_attempt(0), journal.start_attempt(1), journal.start_attempt(0)] == [1, 1, 2]
    journal.start_trial(0, 1, "resolved", {"host": "a"})
    assert journal.trial(0).config == "resolved"
    assert journal.environment(0) == {}, "the last attempt has not said where it runs"
    journal.start_trial(0, 2, "resolved", {"host": "b"})
    assert journal.environment(0)["host"] == "b"
    journal.end_attempt(0, 1, "OSError: disk", "crashed")
    journal.end_attempt(0, 1, "the worker process died", "died")
    journal.end_attempt(0, 2, "its node was lost", "node lost")
    found = [(attempt.attempt, attempt.error, attempt.cause) for attempt in journal.attempts(0)]
    assert found == [(1, "OSError: disk", "crashed"), (2, "its node was lost", "node lost")], "the first reason stays"
    assert [attempt.attempt for attempt in journal.failures(0)] == [1], "the loss of a node is no failure"
    assert journal.failures(1) == []


def test_forgiven_failures_count_no_longer(journal: Journal) -> None:
    for number in (0, 1):
        journal.end_attempt(number, journal.start_attempt(number), "OSError: disk", "crashed")
    journal.end_trial(0, "failed", "OSError: disk")
    assert journal.forgive_failed() == [0]
    assert journal.outcome(0) == "interrupted"
    assert (journal.failures(0), len(journal.failures(1))) == ([], 1)
    assert journal.start_attempt(0) == 2, "attempts are still counted on"


def test_running_seconds_end_with_the_last_sign_of_life(journal: Journal) -> None:
    journal.start_attempt(0)
    journal.add_evaluation(0, evaluation(40))
    heard = time.time()
    time.sleep(0.05)
    assert journal.running_seconds() >= 0.05
    journal.close_attempts()
    [attempt] = journal.attempts(0)
    assert journal.running_seconds() <= heard - attempt.started, "the driver was dead meanwhile"


def test_rungs(journal: Journal) -> None:
    records = [RungRecord(0, 0, 120, (0.1, 1 / 3), True), RungRecord(2, 1, 240, (0.2, 2.0), False)]
    for record in reversed(records):
        journal.add_rung(record)
    assert journal.rungs() == records
    with pytest.raises(sqlite3.IntegrityError):
        journal.add_rung(records[0])


# --- Others at the same file ------------------------------------------------------------------------------------------


def test_a_reader_in_another_thread_sees_whole_evaluations_while_a_writer_works(journal: Journal) -> None:
    done, seen, torn = threading.Event(), [], []

    def read() -> None:
        reader = Journal(journal.path)
        while not done.is_set():
            count = len(Outbox(reader).points_after(0, 10_000))
            seen.append(count)
            torn.extend([count] if count % 50 else [])
        seen.append(len(Outbox(reader).points_after(0, 10_000)))
        reader.close()

    thread = threading.Thread(target=read)
    thread.start()
    for step in range(60):
        points = tuple(Point(f"k{index}", step, 1.0, 1) for index in range(50))
        journal.add_evaluation(0, Evaluation(step, "running", {PIXEL_MSE: 1.0}, points))
    done.set()
    thread.join()
    assert not torn
    assert seen[-1] == 3000
    assert seen == sorted(seen)


def test_two_writers_wait_for_each_other(journal: Journal) -> None:
    def write() -> None:
        other = Journal(journal.path)
        for index in range(100):
            other.set_meta("cursor", str(index))
        other.close()

    thread = threading.Thread(target=write)
    thread.start()
    for step in range(100):
        journal.add_evaluation(0, evaluation(step))
    thread.join()
    assert journal.meta("cursor") == "99"
    assert len(journal.evaluations(0)) == 100


WRITER = """
import sys
from pathlib import Path
from search.journal.journal import Journal
from vaegan_core.evaluation import Evaluation, Point
journal = Journal(Path(sys.argv[1]))
for step in range(100_000):
    points = tuple(Point(f"k{index}", step, 1.0, 1) for index in range(200))
    journal.add_evaluation(0, Evaluation(step, "running", {"m": 1.0}, points, {"grid": b"x" * 5000}))
    if step == 20:
        print("writing", flush=True)
"""


@pytest.mark.parametrize("after", [0.0, 0.013, 0.05])
def test_a_killed_writer_leaves_whole_evaluations(journal: Journal, after: float) -> None:
    path = journal.path
    journal.close()
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    time.sleep(after)
    os.kill(writer.pid, signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    journal = Journal(path)
    steps = journal.evaluations(0)
    assert list(steps) == list(range(len(steps)))
    assert len(steps) >= 20
    assert journal.trial(0).step == max(steps)
    per_step: dict[int, int] = {}
    for point in journal.points(0):
        per_step[point.step] = per_step.get(point.step, 0) + 1
    assert per_step == dict.fromkeys(steps, 200)
    assert {image.step for image in Outbox(journal).images_after(0, 1_000_000)} == set(steps)
    assert journal.start_attempt(0) == 1, "and it can be written on"


def test_a_trial_ends_only_with_an_end(journal: Journal) -> None:
    with pytest.raises(ValueError, match="one of completed, pruned, diverged, impossible, failed or interrupted"):
        journal.end_trial(0, Outcome.RUNNING)
    with pytest.raises(ValueError, match="'finished' is not a valid Outcome"):
        journal.end_trial(0, "finished")
    assert journal.outcome(0) == Outcome.RUNNING


def test_a_replicate_is_never_the_best_trial(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "journal.db", id="a")
    for number, mse in enumerate((0.3, 0.2, 0.1)):
        journal.add_trial(number, {}, "", "test", replicate_of=1 if number == 2 else None)
        journal.add_evaluation(number, Evaluation(40, "completed", {"val/pixel_mse": mse}))
        journal.end_trial(number, Outcome.COMPLETED)
    assert [(trial, value) for trial, value, _ in journal.best_first("val/pixel_mse")] == [(1, 0.2), (0, 0.3)]


# --- What MLflow has --------------------------------------------------------------------------------------------------

NEWS: dict[str, Callable[[Journal], object]] = {
    "1 outcome": lambda journal: journal.end_trial(0, Outcome.PRUNED),
    "2 configurations": lambda journal: journal.db.execute("UPDATE trials SET files = files + 1 WHERE number < 2"),
    "1 image grid": lambda journal: journal.add_evaluation(0, Evaluation(40, "running", images={"grid": b"png"})),
    "1 curve point": lambda journal: journal.add_points(0, [Point("param/lr", 0, 1.0, 1)]),
    "1 outcome and 1 configuration": lambda journal: journal.add_trial(3, {}, "config", "random"),
}


@pytest.mark.parametrize("news", NEWS)
def test_everything_has_arrived_only_where_the_journal_says_so(journal: Journal, news: str) -> None:
    outbox, tracker = Outbox(journal), SimpleNamespace(close=lambda *_: True)
    arrived = lambda: deliver(tracker, journal, "", 1.0, screen)  # noqa: E731
    for number in range(3):
        outbox.set_run_id(number, f"run {number}")
        outbox.set_synced(journal.trial(number))
        outbox.set_files_sent(number, 1)
    assert outbox.unsent() == []
    assert arrived()
    NEWS[news](journal)
    assert " and ".join(outbox.unsent()) == news
    assert not arrived(), "though the delivering process ended well"


def test_an_end_like_the_one_before_is_still_to_be_sent(journal: Journal) -> None:
    """A trial that was stopped, got a second chance and was stopped again, while MLflow was away or slow."""
    outbox, rung = Outbox(journal), RungRecord(0, 0, 120, (0.1, 0.3), False)
    outbox.set_run_id(0, "run 0")
    journal.add_rung(rung)
    journal.end_trial(0, Outcome.PRUNED)
    first_end = journal.trial(0)
    outbox.set_synced(first_end)
    assert 0 not in [trial.number for trial in outbox.out_of_step()]
    journal.take_back(rung)
    journal.end_trial(0, Outcome.PRUNED)
    outbox.set_synced(first_end)
    assert 0 in [trial.number for trial in outbox.out_of_step()]
    outbox.set_synced(journal.trial(0))
    assert 0 not in [trial.number for trial in outbox.out_of_step()]


def test_what_will_resume_is_read_from_the_checkpoints(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    for number, step in ((0, 80), (1, 40)):
        journal.add_evaluation(number, evaluation(step))
    journal.add_saved([SavedRecord(0, 1, 80, FileKind.STATE, "trials/00000/attempt-1/step-80", "hash")])
    journal.set_meta(Meta.CODE, code_version())
    say_what_is_left(make_sweep(), journal, Screen())
    said = capsys.readouterr().out
    assert "3 will resume from checkpoints (0 at step 80, 1 at step 0, 2 at step 0)" in said
    assert "further than the checkpoints that are there" in said
    assert said.strip().endswith(": 1 (step 40).")
