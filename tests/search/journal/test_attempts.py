"""Attempts, and what they report: each counts for itself, and a value that was computed twice is compared."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sweeps import evaluation, make_journal

from search.journal.journal import Journal
from search.journal.outbox import Outbox
from search.journal.records import Cause, FileKind, SavedRecord
from search.journal.reports import ROUNDING
from vaegan_core.evaluation import PIXEL_MSE, Point

MILLISECONDS = 1000


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = make_journal(tmp_path)
    for number in range(2):
        journal.add_trial(number, {}, "", "random")
    return journal


def begin(journal: Journal, trial: int, **environment: str) -> int:
    attempt = journal.start_attempt(trial)
    journal.start_trial(trial, attempt, "", environment)
    return attempt


def test_errors_of_a_gpu_are_told_with_their_trial_and_host(journal: Journal) -> None:
    for trial, host, cause in [(0, "a", Cause.DEVICE), (1, "b", Cause.CRASHED), (1, "c", Cause.DEVICE)]:
        journal.end_attempt(trial, begin(journal, trial, host=host), "it broke", cause)
    assert [(trial, found["host"]) for trial, found in journal.device_failures()] == [(0, "a"), (1, "c")]
    journal.end_trial(1, "failed")
    journal.forgive_failed()
    assert [trial for trial, _ in journal.device_failures()] == [0]


def test_nothing_has_run_before_the_first_attempt(journal: Journal) -> None:
    assert journal.running_seconds() == 0
    assert journal.gpu_seconds(1.0) == 0


def test_a_second_attempt_has_not_begun_because_the_first_had(journal: Journal) -> None:
    first = begin(journal, 0, host="a")
    second = journal.start_attempt(0)
    assert journal.has_begun(0, first)
    assert not journal.has_begun(0, second)


def test_beginnings_are_in_order_by_trial_and_attempt(journal: Journal) -> None:
    for trial, host in [(1, "b"), (0, "a"), (1, "c")]:
        begin(journal, trial, host=host)
    assert {trial: [host for _, host in each] for trial, each in journal.beginnings().items()} == {
        0: ["a"],
        1: ["b", "c"],
    }


def test_rounding_is_no_mismatch_and_more_than_rounding_is(journal: Journal) -> None:
    report = evaluation(10, mse=0.5)
    journal.add_evaluation(0, report)
    for factor, mismatches in [(1 + ROUNDING / 2, 0), (1 + 2 * ROUNDING, 1)]:
        journal.start_attempt(0)
        attempt = journal.num_attempts(0)
        again = replace(report, points=(Point(PIXEL_MSE, 10, 0.5 * factor, 2000),))
        journal.add_evaluation(0, again, attempt)
        assert journal.all_attempts(0)[-1].mismatches == mismatches
    assert [point.value for point in journal.points(0) if point.key == PIXEL_MSE] == [0.5]


def test_an_image_has_the_time_at_which_it_arrived_in_milliseconds(journal: Journal) -> None:
    before = int(time.time() * MILLISECONDS)
    journal.add_evaluation(0, evaluation(10))
    after = int(time.time() * MILLISECONDS)
    (image,) = Outbox(journal).images_after(0, 9)
    assert before <= image.time <= after
    assert (image.trial, image.key, image.step, image.png) == (0, "prior_samples", 10, b"png of 10")
    assert Outbox(journal).image(image.id) == image


def test_what_the_cursors_passed_of_a_trial_without_a_run_is_found_whole(journal: Journal) -> None:
    for step in (10, 20):
        for trial in (0, 1):
            journal.add_evaluation(trial, evaluation(step))
    outbox = Outbox(journal)
    points, images = outbox.points_after(0, 100), outbox.images_after(0, 100)
    journal.set_meta("points_cursor", str(points[-3][0]))
    journal.set_meta("images_cursor", str(images[-2].id))
    found_points, found_images = outbox.passed_over(1)
    assert found_points == [(id, point) for id, trial, point in points[:-2] if trial == 1]
    assert found_images == [image for image in images[:-1] if image.trial == 1]
    assert (len(found_points), len(found_images)) == (2, 1)


def test_every_evaluation_is_read_with_its_trial_step_and_metrics(journal: Journal) -> None:
    for trial, step in [(1, 10), (0, 20), (0, 10)]:
        journal.add_evaluation(trial, evaluation(step, mse=step / 100 + trial))
    found = [(trial, step, metrics[PIXEL_MSE]) for trial, step, _, metrics in journal.every_evaluation()]
    assert found == [(0, 10, 0.1), (0, 20, 0.2), (1, 10, 1.1)]


def test_an_attempt_shares_its_gpu_unless_it_is_alone(journal: Journal) -> None:
    journal.start_attempt(0)
    journal.start_attempt(0, alone=True)
    assert [attempt.alone for attempt in journal.attempts(0)] == [False, True]


def test_a_state_is_the_last_one_or_that_of_a_step(journal: Journal) -> None:
    states = [SavedRecord(0, 1, step, FileKind.STATE, f"key-{step}", "sha") for step in (10, 20)]
    journal.add_saved(states)
    assert journal.state(0) == states[1]
    assert journal.state(0, 10) == states[0]
    assert journal.state(0, 15) is None


def test_a_new_journal_is_made_on_the_disk_where_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no-such-disk"))
    assert make_journal(tmp_path).trials() == []
