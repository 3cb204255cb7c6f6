"""A screen moves between evaluations: workers beat, the driver's view counts it, another shell sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sweeps import evaluation
from tuning import Tuning, tuning

from search.commands import live
from search.commands.live import SweepView
from search.running import heartbeat
from search.running.heartbeat import BEAT_SECONDS, Heartbeats, beating
from search.standings.progress import ahead, keep_steps, read_progress, read_steps
from search.terminal import Screen


class Time:
    """A clock that stands still until it is set."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Actor:
    """Takes beats as Ray's handle does."""

    def __init__(self) -> None:
        self.beats: list[tuple[int, int]] = []
        self.beat = self

    def remote(self, trial: int, step: int) -> None:
        self.beats.append((trial, step))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(heartbeat, "time", time)
    monkeypatch.setattr(live, "time", time)
    return time


@pytest.fixture
def running(tmp_path: Path) -> Tuning:
    """Trial 0 has completed; trial 1 was last evaluated at step 40."""
    t = tuning(tmp_path)
    t.start(2)
    t.complete(0, 0.3, 5.0)
    t.report(1, evaluation(40, 0.1, 1.0))
    return t


class Listening(SweepView):
    """A view without a terminal; what it says is kept."""

    said: list[str]

    def say(self, message: str) -> None:
        self.said.append(message)


def lines_of(t: Tuning) -> tuple[SweepView, list[str]]:
    view = Listening(t.sweep, t.journal, Screen())
    view.said = []
    return view, view.said


def test_a_trial_beats_at_once_and_then_not_too_often(clock: Time) -> None:
    actor = Actor()
    beat = beating(actor, 7)
    for step in (10, 20, 30):
        beat(step)
    clock.now += BEAT_SECONDS
    beat(40)
    assert actor.beats == [(7, 10), (7, 40)]
    beating(None, 7)(10)  # without an actor nobody is told


def test_the_actor_keeps_the_last_step_of_a_trial() -> None:
    hearts = Heartbeats()
    for trial, step in ((1, 60), (2, 20), (1, 50)):  # trial 1 went back to its checkpoint
        hearts.beat(trial, step)
    assert hearts.read() == {1: 50, 2: 20}


def test_steps_between_evaluations_count_for_running_trials_alone(running: Tuning) -> None:
    before = read_progress(running.sweep, running.journal)
    now = read_progress(running.sweep, running.journal, {0: 9999, 1: 100})
    assert now.steps == before.steps + 60
    one = running.journal.trial(1)
    assert ahead(one, {1: 100}) == 100
    assert ahead(one, {1: 20}) == 40, "an attempt that repeats steps takes nothing back"


def test_time_left_moves_before_the_first_evaluation(tmp_path: Path, clock: Time) -> None:
    t = tuning(tmp_path)
    t.start(1)
    view, said = lines_of(t)
    for step in (0, 10, 30):
        clock.now += 60
        view.refresh({0: step})
    assert "time left: measuring" in said[0]
    assert "steps/s, about" in said[2]


def test_without_a_terminal_a_line_on_change_or_once_a_minute(running: Tuning, clock: Time) -> None:
    view, said = lines_of(running)
    for second in range(0, 600, 1):
        clock.now = 1000.0 + second
        view.refresh({1: 40 + second})
        if second == 100:
            running.complete(1, 0.2, 4.0)
    assert len(said) == 1 + 9 + 1, "one at once, one a minute, one for the trial that ended"
    told = next(line for line in said if "2 completed" in line)
    assert "val/pixel_mse 0.2 (trial 1)" in told


def test_another_shell_sees_the_steps_and_a_broken_file_hides_nothing_else(tmp_path: Path) -> None:
    assert read_steps(tmp_path) == {}
    keep_steps(tmp_path, {3: 120})
    assert read_steps(tmp_path) == {3: 120}
    for broken in ("", "[1]", '{"a": 1}', "null"):
        (tmp_path / "steps.json").write_text(broken)
        assert read_steps(tmp_path) == {}
