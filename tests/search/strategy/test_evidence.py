"""What a model is shown of a sweep, and what it makes of it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import FrozenTrial, TrialState
from sweeps import BASELINES, evaluation, make_sweep
from tuning import Tuning, resume, tuning

from search.config.strategies import SamplerConfig
from search.journal.meta import Meta
from search.names import Outcome
from search.strategy.evidence import MIN_TRIALS, Evidence
from search.strategy.samplers import make_sampler

LR = "optimizer.autoencoder.lr"
SPACE = {LR: {"low": 0.001, "high": 1.0}}
BASE = copy.deepcopy(make_sweep().config.base) | {"loss": {"kl": {"control": "fixed", "beta": 1}}}
ASHA = {"name": "asha", "min_steps": 40, "reduction_factor": 4, "audit": 0.0}
COMPLETE, PRUNED, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING


def searched(directory: Path, **changes: Any) -> Tuning:
    """A sweep over one number, with rungs at 40 and 160 of 480 steps that keep a quarter."""
    directory.mkdir(exist_ok=True)
    settings: dict[str, Any] = {
        "space": SPACE,
        "base": BASE,
        "sampler": {"name": "tpe", "startup_trials": 1},
        "scheduler": {"name": "asha", "min_steps": 40, "reduction_factor": 4},
        "budget": {"trials": 1000},
    }
    return tuning(directory, max_concurrent=1, **settings | changes)


def place(t: Tuning, lr: float) -> int:
    """Starts a trial and writes another value over what was drawn."""
    (number,) = t.start()
    t.journal.db.execute("UPDATE trials SET params = ? WHERE number = ?", (json.dumps({LR: lr}), number))
    return number


def stop(t: Tuning, number: int) -> None:
    """Ends a trial early, even one that is among the best."""
    if t.journal.outcome(number) == Outcome.RUNNING:
        t.journal.end_trial(number, Outcome.PRUNED, "stopped for the test")
        t.search.on_trial_complete(t._ids[number], {})


def shown(t: Tuning) -> dict[int, FrozenTrial]:
    evidence = Evidence(t.sweep, t.journal)
    return {trial.number: trial for trial in evidence.trials(t.search.proposals.study)}


def states(t: Tuning) -> dict[int, TrialState]:
    return {number: trial.state for number, trial in shown(t).items()}


@pytest.mark.parametrize("objectives", [["val/pixel_mse"], ["val/pixel_mse", "val/layout_fd"]])
def test_suggestions_follow_what_stopped_trials_reached_and_not_their_age(
    tmp_path: Path, objectives: list[str]
) -> None:
    """43 trials, all stopped at the first rung, the oldest of them far from the best."""
    t = searched(tmp_path, objectives=objectives)
    lrs = np.random.default_rng(0).permutation(np.linspace(0.01, 0.99, 43)).tolist()
    oldest = sorted(lrs, key=lambda lr: -abs(lr - 0.3))[:5]
    for lr in [*oldest, *(lr for lr in lrs if lr not in oldest)]:
        distance = abs(lr - 0.3)
        number = place(t, lr)
        t.report(number, evaluation(40, 0.1 + distance, 10 + 100 * distance))
        stop(t, number)
    t = resume(t)
    suggested = []
    for _ in range(20):
        (number,) = t.start()
        suggested.append(t.journal.trial(number).params[LR])
        t.crash(number)
        t.start()
        t.crash(number)
    assert Outcome.COMPLETED not in t.journal.counts()
    assert np.median(np.abs(np.array(suggested) - 0.3)) < 0.1, suggested


def test_a_higher_level_counts_once_enough_trials_have_reached_it(tmp_path: Path) -> None:
    t = searched(tmp_path, scheduler={"name": "asha", "min_steps": 40, "reduction_factor": 12})
    t.search.max_concurrent = 100
    numbers = t.start(MIN_TRIALS + 1)
    for count, number in enumerate(numbers[:-1]):
        t.report(number, evaluation(40, 0.5 - 0.01 * count, 5 - 0.1 * count))
    assert {t.journal.outcome(number) for number in numbers} == {"running"}, "each was the best so far"
    assert states(t) == dict.fromkeys(numbers[:-1], COMPLETE) | {numbers[-1]: RUNNING}
    for count, number in enumerate(numbers[1:-1]):
        t.complete(number, 0.2, 0.1 * count)
    assert shown(t)[1].values == [0.49, 4.9], "eleven have completed: still the values of the rung"
    t.complete(0, 0.1, 0.1)
    assert shown(t)[1].values == [0.2, 0.0]
    t.report(numbers[-1], evaluation(40, 9.0, 9.0))
    assert states(t)[numbers[-1]] == PRUNED, "ended below the level: bad, and without a value to compare"


def test_a_diverged_trial_and_one_that_violates_a_constraint_are_infeasible(tmp_path: Path) -> None:
    t = searched(tmp_path, constraints=["val/pixel_mse <= 0.4"])
    t.search.max_concurrent = 100
    t.start(4)
    t.report(0, evaluation(40, 0.3))
    t.report(0, evaluation(55, outcome="diverged", reason="nan"))
    t.report(1, evaluation(40, 0.5, 1.0))
    t.report(2, evaluation(40, 0.3, 2.0))
    found = shown(t)
    assert {n: trial.state for n, trial in found.items()} == {0: PRUNED, 1: COMPLETE, 2: COMPLETE, 3: RUNNING}
    violated = [sum(max(0, v) for v in found[n].constraints.values()) for n in (0, 1, 2)]
    assert violated == [np.inf, pytest.approx(0.1), 0], "the diverged one behind all that can be compared"
    assert found[3].constraints == {}


@pytest.mark.parametrize("step", [160, 480])
def test_a_second_chance_that_ends_before_the_next_draw_is_seen(tmp_path: Path, step: int) -> None:
    """With one slot, nothing is drawn while it runs."""
    t = searched(tmp_path, objectives=["val/pixel_mse"], scheduler=ASHA)
    for mse in (0.1, 0.2, 0.3, 0.4, 0.5):
        (number,) = t.start()
        t.report(number, evaluation(40, mse), saved=True)
        if t.journal.outcome(number) == Outcome.RUNNING:
            t.complete(number, mse)
    evidence = t.search.proposals.evidence
    evidence.refresh()
    (again,) = t.start()
    assert (again, evidence._seen[again].outcome) == (1, Outcome.PRUNED)
    if step == 480:
        t.complete(again, 0.15)
    else:
        t.report(again, evaluation(step, 0.9))
        stop(t, again)
    evidence.refresh()
    assert evidence._seen == Evidence(t.sweep, t.journal)._seen
    assert max(evidence._seen[again].levels) == step


def test_where_every_trial_violates_a_constraint_those_that_violate_it_least_are_good(tmp_path: Path) -> None:
    t = searched(tmp_path, objectives=["val/pixel_mse"], constraints=["val/layout_fd <= 5"], scheduler=ASHA)
    t.search.max_concurrent = 100
    t.start(60)
    t.report(0, evaluation(40, outcome="diverged", reason="nan"))
    for number in range(1, 60):
        if t.journal.outcome(number) == Outcome.RUNNING:
            t.report(number, evaluation(40, 0.1, 5.5 if number % 2 else 9.0))
        if number % 3 == 0 and t.journal.outcome(number) == Outcome.RUNNING:
            t.report(number, evaluation(160, 0.1 + 0.001 * number, 40.0 - number / 2))
        stop(t, number)
    proposals = t.search.proposals
    proposals.evidence.refresh()
    trials, sampler = proposals.evidence.trials(proposals.study), proposals.study.sampler
    good = _split_trials(proposals.study, trials, sampler._sampler._gamma(len(trials)))[0]
    assert PRUNED in {trial.state for trial in trials}
    assert [(trial.number, trial.state) for trial in good] == [
        (number, COMPLETE) for number in (42, 45, 48, 51, 54, 57)
    ]


def test_replicates_are_part_of_the_trial_that_they_repeat(tmp_path: Path) -> None:
    t = searched(tmp_path, budget={"trials": 1}, confirm={"top": 1, "seeds": 2})
    t.journal.set_meta(Meta.BASELINES, json.dumps(BASELINES))
    t.start()
    t.complete(0, 0.3, 3.0)
    (replicate,) = t.start()
    t.complete(replicate, 0.6, 6.0)
    (trial,) = shown(t).values()
    assert trial.values == pytest.approx([0.45, 4.5])


def test_known_points_of_an_earlier_sweep_are_compared_at_equal_steps(tmp_path: Path) -> None:
    t = searched(tmp_path)
    final = {"val/pixel_mse": 0.1, "val/layout_fd": 1.0}
    early = {"val/pixel_mse": 0.4, "val/layout_fd": 4.0}
    known = [{"params": {LR: 0.5}, "metrics": final, "evaluations": {"40": early, "480": final}}]
    t.journal.set_meta(Meta.WARM_START, json.dumps(known))
    t = resume(t)
    t.start()
    t.report(0, evaluation(40, 0.3, 3.0))
    assert {number: trial.values for number, trial in shown(t).items()} == {0: [0.4, 4.0], 1: [0.3, 3.0]}


def test_what_a_model_sees_of_many_trials_is_bounded_and_has_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.strategy.evidence.MOST_TOLD", 20)
    monkeypatch.setattr("search.strategy.evidence.BEST_TOLD", 5)
    t = searched(tmp_path, scheduler={"name": "none"})
    for number in range(60):
        t.start()
        if number % 3:
            t.complete(number, 0.01 if number == 4 else 0.5 + 0.001 * number, 0.1 if number == 4 else 5.0)
        else:
            t.report(number, evaluation(60, outcome="diverged", reason="nan"))
    known = shown(t)
    assert {4, 58, 59} <= set(known), "the best of all, and the newest"
    assert len(known) <= 5 + 10 + 10


def test_of_many_trials_a_model_sees_the_best_that_violate_no_constraint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.strategy.evidence.MOST_TOLD", 20)
    monkeypatch.setattr("search.strategy.evidence.BEST_TOLD", 5)
    only = {"objectives": ["val/pixel_mse"], "constraints": ["val/layout_fd <= 5"]}
    t = searched(tmp_path, scheduler={"name": "none"}, **only)
    for number in range(40):
        t.start()
        t.complete(number, *((0.9, 4.0) if number in (3, 7) else (0.1, 6.0)))
    assert {3, 7} <= set(shown(t))


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes"])
def test_every_sampler_that_models_learns_from_stopped_trials(tmp_path: Path, name: str) -> None:
    space = {LR: {"low": 0.001, "high": 1.0}, "optimizer.autoencoder.beta1": {"low": 0.0, "high": 0.9}}
    objectives = ["val/pixel_mse"] if name == "cmaes" else ["val/pixel_mse", "val/layout_fd"]
    t = searched(tmp_path, space=space, objectives=objectives, sampler={"name": name, "startup_trials": 8})
    for number in range(24 if name == "gp" else 48):  # which takes its time
        t.start()
        distance = abs(t.journal.trial(number).params[LR] - 0.8)
        t.report(number, evaluation(40, distance, 10 * distance))
        stop(t, number)
    late = [record.params[LR] for record in t.journal.trials()[-12:]]
    assert np.median(np.abs(np.array(late) - 0.8)) < 0.15, late


def test_running_trials_are_shown_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or all slots would be given nearly the same values at once."""
    monkeypatch.setattr("search.strategy.evidence.MOST_TOLD", 4)
    t = searched(tmp_path, scheduler={"name": "none"})
    t.search.max_concurrent = 100
    t.start(9)
    for number in range(6):
        t.complete(number, 0.1 * number, float(number))
    assert [number for number, state in states(t).items() if state == RUNNING] == [6, 7, 8]


def test_suggestions_keep_away_from_what_runs_already(tmp_path: Path) -> None:
    """With many slots, the one best place must not be tried many times at once."""

    def spread(name: str, liar: bool | None) -> float:
        t = searched(tmp_path / name, scheduler={"name": "none"}, objectives=["val/pixel_mse"])
        for lr in np.linspace(0.01, 0.99, 30):
            t.complete(place(t, float(lr)), 0.1 + abs(lr - 0.5))
        t = resume(t)
        t.search.max_concurrent = 100
        if liar is not None:
            t.search.proposals.study.sampler._sampler._constant_liar = liar
        numbers = [number for number in t.start(20) if t.journal.trial(number).origin == "tpe"]
        return float(np.std([t.journal.trial(number).params[LR] for number in numbers]))

    told = spread("told", True)
    assert spread("as it is", None) == told
    assert told > 1.3 * spread("not told", False)


def test_several_objectives_are_modelled_parameter_by_parameter() -> None:
    """Together, a third of replayed sweeps got stuck in a poor region (tests/benchmarks/README.md)."""
    for objectives, together in ((1, True), (2, False)):
        sampler: Any = make_sampler(SamplerConfig(name="tpe"), SimpleNamespace(num_trials=0), objectives)
        assert sampler._sampler._multivariate is together
