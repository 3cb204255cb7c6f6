"""Who is stopped, and who waits for a second chance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sweeps import evaluation, make_journal, make_sweep

from search.config.strategies import MOST_WAITING
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.names import Outcome
from search.strategy.stopping import StoppingRule, make_rule
from vaegan_core.evaluation import PIXEL_MSE

VALUES = (49, 7, 94, 93, 38, 42, 51, 63, 77, 96)


@dataclass
class Judged:
    """Trials that have come as far as one step, and the rule that has judged them."""

    sweep: Sweep
    journal: Journal
    rule: StoppingRule
    states: set[int]
    stopped: set[int]


def judged(directory: Path, scheduler: dict[str, Any], values: Iterable[float], step: int = 120) -> Judged:
    """Trials with these values at `step`, in this order; all have kept their states."""
    directory.mkdir(exist_ok=True)
    sweep, journal = make_sweep(objectives=[PIXEL_MSE], scheduler=scheduler), make_journal(directory)
    states: set[int] = set()
    rule, stopped = make_rule(sweep, journal, states.__contains__), set[int]()
    for trial, value in enumerate(values):
        journal.add_trial(trial, {}, "", "test")
        states.add(trial)
        if rule.verdict(trial, step, {PIXEL_MSE: float(value)}):
            journal.end_trial(trial, Outcome.PRUNED)
            stopped.add(trial)
    return Judged(sweep, journal, rule, states, stopped)


def test_a_resumed_sweep_has_the_same_trials_waiting_for_a_second_chance(tmp_path: Path) -> None:
    """Trials that were pushed out of the line have lost their states and take nobody's place in it."""
    scheduler = {"name": "asha", "min_steps": 120, "reduction_factor": 2, "audit": 0.0}
    sweep, journal = make_sweep(objectives=["val/pixel_mse"], scheduler=scheduler), make_journal(tmp_path)
    states: set[int] = set()
    rule = make_rule(sweep, journal, states.__contains__)
    for trial, value in enumerate(VALUES):
        journal.add_trial(trial, {}, "", "test")
        states.add(trial)
        if rule.verdict(trial, 120, {"val/pixel_mse": value}):
            journal.end_trial(trial, Outcome.PRUNED)
        states &= rule.waiting()
        rule.second_chance()
    waiting = rule.waiting()
    assert waiting
    assert waiting <= states
    assert make_rule(sweep, journal, states.__contains__).waiting() == waiting


def test_trials_that_are_never_stopped_take_no_place_among_those_that_wait(tmp_path: Path) -> None:
    scheduler = {"name": "asha", "min_steps": 120, "reduction_factor": 12, "audit": 0.5}
    sweep, journal = make_sweep(objectives=["val/pixel_mse"], scheduler=scheduler), make_journal(tmp_path)
    rule = make_rule(sweep, journal, lambda _: True)
    for trial in range(20):
        journal.add_trial(trial, {}, "", "test")
        rule.verdict(trial, 120, {"val/pixel_mse": float(trial)})
    stopped = [trial for trial in range(1, 20) if not sweep.is_audited(trial)]
    assert rule.waiting() == set(stopped[:MOST_WAITING])


def test_a_state_that_another_trial_has_kept_gives_nobody_a_second_chance(tmp_path: Path) -> None:
    scheduler, values = {"name": "asha", "min_steps": 120, "reduction_factor": 2, "audit": 0.0}, (1, 2, 5, 6)
    t = judged(tmp_path, scheduler, values)
    t.states.remove(1)
    assert t.rule.second_chance() is None, "the others are too bad"
    t.states.add(1)
    assert t.rule.second_chance() == 1, "among the best two of four"


def test_without_second_chances_nobody_waits(tmp_path: Path) -> None:
    scheduler = {"name": "asha", "min_steps": 120, "reduction_factor": 2, "audit": 0.0, "second_chance": False}
    t = judged(tmp_path, scheduler, VALUES)
    assert len(t.stopped) > 1
    assert t.rule.waiting() == set()
    assert t.rule.second_chance() is None


@pytest.mark.parametrize("name", ["asha", "median"])
def test_a_trial_that_is_audited_is_judged_and_goes_on(name: str, tmp_path: Path) -> None:
    own = {"reduction_factor": 4} if name == "asha" else {"min_trials": 1}
    t = judged(tmp_path, {"name": name, "min_steps": 120, "audit": 0.5} | own, range(20))
    audited = {trial for trial in range(20) if t.sweep.is_audited(trial)}
    assert 0 < len(audited - {0}) < 19
    assert t.stopped == set(range(1, 20)) - audited


def test_a_trial_that_was_dropped_is_not_judged_in_the_next_rung(tmp_path: Path) -> None:
    t = judged(tmp_path, {"name": "asha", "min_steps": 40, "reduction_factor": 2, "audit": 0.0}, (1.0, 2.0), step=40)
    assert t.stopped == {1}
    assert t.rule.verdict(1, 120, {PIXEL_MSE: 0.5}) == "not among the best 1/2 of rung 0 at step 40"
    assert {(record.rung, record.trial) for record in t.journal.rungs()} == {(0, 0), (0, 1)}


MEDIAN = {"name": "median", "min_steps": 40, "min_trials": 2, "audit": 0.0}


def test_the_median_of_a_resumed_sweep_is_that_of_its_journal(tmp_path: Path) -> None:
    t = judged(tmp_path, MEDIAN, ())
    for trial, values in enumerate([(1.0, 5.0), (2.0, 2.0), (4.0, 3.0)]):
        t.journal.add_trial(trial, {}, "", "test")
        for step, value in zip((40, 80), values, strict=True):
            t.journal.add_evaluation(trial, evaluation(step, value))
    t.journal.add_trial(3, {}, "", "replicate", replicate_of=0)
    for step in (40, 80):
        t.journal.add_evaluation(3, evaluation(step, 100.0))
    for step, median in ((40, 2.0), (80, 3.0)):
        for value in (median - 0.1, median, median + 0.1):
            rule = make_rule(t.sweep, t.journal, t.states.__contains__)
            assert bool(rule.verdict(4, step, {PIXEL_MSE: value})) == (value > median), f"{value} at step {step}"


def test_the_median_needs_others_and_something_worse_than_it(tmp_path: Path) -> None:
    t = judged(tmp_path, MEDIAN, (1.0, 3.0), step=40)
    assert t.stopped == set(), "one other has come as far"
    assert t.rule.verdict(2, 40, {PIXEL_MSE: 2.1}) == "val/pixel_mse 2.1 worse than the median 2 at step 40"
    assert t.rule.verdict(3, 40, {PIXEL_MSE: 2.1}) == "", "as good as the median of three"
