"""Who waits for a second chance."""

from __future__ import annotations

from pathlib import Path

from sweeps import make_journal, make_sweep

from search.config.strategies import MOST_WAITING
from search.names import Outcome
from search.strategy.stopping import make_rule

VALUES = (49, 7, 94, 93, 38, 42, 51, 63, 77, 96)


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
