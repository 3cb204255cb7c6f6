"""The best trials, run again with fresh seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ray.tune.search import Searcher
from sweeps import BASELINES, evaluation, with_kl
from tuning import Tuning, resume, tuning

from search.journal.meta import Meta
from search.standings.standings import missing_replicates, standings
from vaegan_core.config.trial import TrialConfig, parse_trial
from vaegan_core.evaluation import PIXEL_MSE
from vaegan_core.strict_yaml import parse_yaml

FINISHED = Searcher.FINISHED


def config_of(t: Tuning, number: int) -> TrialConfig:
    return parse_trial(parse_yaml(t.journal.trial(number).config))


def confirming(directory: Path) -> Tuning:
    t = tuning(directory, budget={"trials": 4}, confirm={"top": 2, "seeds": 3})
    t.journal.set_meta(Meta.BASELINES, json.dumps(BASELINES))
    t.start(4)
    for number, mse in enumerate((0.05, 0.01, 0.02, 0.06)):
        t.complete(number, mse, 10.0)
    return t


def test_the_best_are_run_again_on_the_same_fresh_seeds(tmp_path: Path) -> None:
    t = confirming(tmp_path)
    t.start(6)
    replicates = t.journal.trials()[4:]
    assert [record.replicate_of for record in replicates] == [1, 1, 1, 2, 2, 2]
    seeds = [config_of(t, record.number).train.seed for record in replicates]
    assert seeds == [1_000_000, 1_000_001, 1_000_002] * 2
    assert all(record.params == t.journal.trial(record.replicate_of or 0).params for record in replicates)
    assert t.suggest() is None
    t.report(4, evaluation(120, 0.9, 99))
    assert t.journal.outcome(4) == "running", "a replicate is never stopped early"


def test_the_mean_over_fresh_seeds_decides_not_the_lucky_first_run(tmp_path: Path) -> None:
    t = confirming(tmp_path)
    t.start(6)
    for number, mse in zip(range(4, 10), (0.04, 0.05, 0.06, 0.02, 0.03, 0.02), strict=True):
        t.complete(number, mse, 10.0)
    assert t.suggest() == FINISHED
    found = standings(t.sweep, t.journal)
    assert [record.number for record in found.best] == [2, 1, 0, 3], "0 beats 1's mean, but may have been lucky too"
    confirmation = found.confirmations[1]
    assert (confirmation.completed, confirmation.ended) == (3, 3)
    assert confirmation.mean[PIXEL_MSE] == pytest.approx(0.05)
    assert confirmation.half_width[PIXEL_MSE] == pytest.approx(4.302653 * 0.01 / 3**0.5, rel=1e-6)
    assert len(t.search.proposals.study.trials) == 10
    assert missing_replicates(t.sweep, t.journal) == []


def test_a_trial_that_lost_a_fresh_seed_ranks_behind_those_that_did_not(tmp_path: Path) -> None:
    t = confirming(tmp_path)
    t.start(6)
    for number, mse in zip(range(4, 6), (0.001, 0.002), strict=True):
        t.complete(number, mse, 10.0)
    t.report(6, evaluation(60, outcome="diverged", reason="nan"))
    found = standings(t.sweep, t.journal)
    assert [record.number for record in found.best] == [2, 0, 3, 1], "also behind those that nobody tried again"
    assert found.confirmations[1].in_words().endswith("(2 of 3 seeds)")


def test_a_trial_whose_fresh_seeds_violate_a_constraint_is_infeasible(tmp_path: Path) -> None:
    t = tuning(tmp_path, budget={"trials": 2}, confirm={"top": 1, "seeds": 2}, constraints=["val/kl_per_dim <= 1"])
    t.journal.set_meta(Meta.BASELINES, json.dumps(BASELINES))
    t.start(2)
    t.report(0, with_kl(480, 0.01, 2.0, kl=0.9))
    t.report(1, with_kl(480, 0.02, 3.0, kl=0.9))
    t.start(2)
    for number, kl in ((2, 0.5), (3, 7.0)):
        t.report(number, with_kl(480, 0.01, 2.0, kl))
    found = standings(t.sweep, t.journal)
    assert found.infeasible == {0}
    assert [record.number for record in found.best] == [1, 0]
    assert found.front == {1}


def test_confirmation_goes_on_after_a_resume_and_begins_again_for_a_new_best(tmp_path: Path) -> None:
    t = confirming(tmp_path)
    t.start(6)
    t.complete(4)
    t = resume(t)
    assert t.start(5) == [5, 6, 7, 8, 9]
    for number in range(5, 10):
        t.complete(number, 0.03, 10.0)
    t = resume(t, budget={"trials": 5}, confirm={"top": 2, "seeds": 3})
    assert t.start() == [10]
    t.complete(10, 0.001, 9.0)
    assert t.start(3) == [11, 12, 13]
    assert {t.journal.trial(n).replicate_of for n in (11, 12, 13)} == {10}
