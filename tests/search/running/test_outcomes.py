"""What becomes of trials that something happened to, told through the searcher and the scheduler without Tune."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher
from sweeps import BASELINES, evaluation, make_journal, make_sweep, sweep_data, trial_data, with_kl
from tuning import Tuning, resume, tuning

from search.config.load import parse_sweep
from search.journal.meta import Meta
from search.paths import HANG_FILE, trial_directory
from search.standings.standings import standings
from search.strategy.study import build_study
from vaegan_core.config.trial import TrialConfig, parse_trial
from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE
from vaegan_core.problems import ConfigError
from vaegan_core.strict_yaml import parse_yaml

FINISHED = Searcher.FINISHED
LR, WIDTH = "optimizer.autoencoder.lr", "model.width"


def config_of(t: Tuning, number: int) -> TrialConfig:
    return parse_trial(parse_yaml(t.journal.trial(number).config))


# --- Failures ---------------------------------------------------------------------------------------------------------


def test_out_of_memory_is_tried_again_alone_on_a_gpu_and_then_has_failed(tmp_path: Path) -> None:
    t = tuning(tmp_path, resources={"cpu": 1, "gpu": 0.25}, retries=0)
    t.start(2)
    t.crash(0, "Traceback\ntorch.OutOfMemoryError: no\n", cause="out of memory")
    again = t.suggest()
    assert (again["trial"], again["attempt"], again["alone"]) == (0, 2, True)
    assert t._resources == [{"cpu": 1, "gpu": 1}], "Ray is asked for a whole GPU"
    assert t.suggest() is None, "a new trial would take the shares that it waits for"
    t.begin(0)
    assert t.suggest()["alone"] is False
    t.crash(0, "Traceback\ntorch.OutOfMemoryError: no\n", cause="out of memory")
    record = t.journal.trial(0)
    assert (record.outcome, record.reason) == ("failed", "out of GPU memory, also alone on a GPU")
    assert t.told(0).state == TrialState.FAIL


def test_a_lost_node_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead: set[str] = set()
    monkeypatch.setattr("search.running.failures.dead_nodes", lambda: frozenset(dead))
    monkeypatch.setattr("search.running.failures.node_is_here", lambda node: node == "head")
    t = tuning(tmp_path, retries=0)
    t.start(3)
    for number, node in ((0, "far"), (1, "head")):
        t.begin(number, node)
    for number in range(3):
        t.die(number)
    assert [t.journal.outcome(number) for number in range(3)] == ["running", "failed", "running"], (
        "Ray may not know yet"
    )
    assert t.start() == [3]
    dead.add("far")
    assert t.start(2) == [2, 0], "one that had not said where it runs counts as lost with a node that has been lost"
    for number in (0, 2):
        assert t.journal.failures(number) == []
        assert t.journal.attempts(number)[0].cause == "node lost"


def test_a_worker_that_died_alone_has_failed_once_ray_had_time_to_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.running.failures.node_is_here", lambda _: False)
    monkeypatch.setattr("search.running.failures.NODE_LOSS_SECONDS", 0.0)
    t = tuning(tmp_path, retries=0)
    t.start()
    t.begin(0, "far")
    t.die(0)
    assert t.journal.trial(0).reason == "the worker process died"


def test_a_worker_that_was_dead_before_its_trial_began_counts_against_nobody_once(tmp_path: Path) -> None:
    t = tuning(tmp_path, retries=0)
    t.start()
    t.die(0)
    assert t.journal.failures(0) == []
    assert t.start() == [0]
    t.die(0)
    assert (t.journal.outcome(0), t.journal.trial(0).reason) == ("failed", "the worker process died")


def test_a_worker_that_ray_ended_for_want_of_memory_says_so(tmp_path: Path) -> None:
    t = tuning(tmp_path, retries=0)
    t.start()
    t.begin(0)
    told = "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: ...) was 31GB / 32GB"
    t.search.tune_trials = [SimpleNamespace(trial_id=id, get_error=lambda: told, status="ERROR") for id in ["tune-1"]]
    t.die(0)
    assert t.journal.trial(0).reason == "its machine ran low on memory, and Ray ended the worker process"


def test_a_hang_counts_as_a_failure_and_says_where(tmp_path: Path) -> None:
    t = tuning(tmp_path, retries=0, evaluation_minutes=0.5)
    t.start()
    hang = trial_directory(t.directory, 0) / HANG_FILE
    hang.parent.mkdir(parents=True)
    hang.write_text('Thread 0x1:\n  File "x.py", line 3 in forward\n')
    t.die(0)
    assert t.journal.trial(0).reason == "Hung: no evaluation within 0.5 minutes"
    [failure] = t.journal.failures(0)
    assert failure.cause == "hung"
    assert "line 3 in forward" in failure.error


def test_a_hang_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t = tuning(tmp_path, retries=1)
    t.start()
    hang = trial_directory(t.directory, 0) / HANG_FILE
    hang.parent.mkdir(parents=True)
    hang.write_text("in forward")
    t.die(0)
    assert t.start() == [0]
    monkeypatch.setattr("search.running.failures.dead_nodes", lambda: frozenset({"lost"}))
    t.die(0)
    assert [attempt.cause for attempt in t.journal.attempts(0)] == ["hung", "node lost"]
    assert t.journal.outcome(0) == "running"


def test_failed_trials_that_are_forgiven_are_tried_again_as_the_same_trials(tmp_path: Path) -> None:
    t = tuning(tmp_path, retries=0, budget={"trials": 2})
    t.start(2)
    t.crash(0)
    t.complete(1)
    assert t.suggest() == FINISHED
    assert t.journal.forgive_failed() == [0]
    t = resume(t)
    assert t.start() == [0]
    assert t.told(0).state == TrialState.RUNNING
    t.complete(0)
    assert [trial.state for trial in t.search.proposals.study.trials] == [TrialState.COMPLETE] * 2
    assert t.suggest() == FINISHED


# --- What is proposed -------------------------------------------------------------------------------------------------


def test_the_same_values_again_get_another_seed(tmp_path: Path) -> None:
    t = tuning(tmp_path, space={WIDTH: [8]}, base=trial_data())
    t.start(3)
    assert [config_of(t, number).train.seed for number in range(3)] == [0, 1, 2]
    t = resume(t)
    assert [t.suggest()["trial"] for _ in range(4)][-1] == 3
    assert config_of(t, 3).train.seed == 3
    assert t.journal.trial(3).origin == "random, time 4 with these values"


def test_a_point_that_repeats_another_is_run_once(tmp_path: Path) -> None:
    point = {LR: 1e-3, WIDTH: 8, "loss.kl.control": "fixed", "loss.kl.sigma": 0.2}
    t = tuning(tmp_path, points={"a": point, "b": point}, budget={"trials": 4})
    t.start(2)
    assert [config_of(t, number).train.seed for number in range(2)] == [0, 1]
    t = resume(t)
    t.start(3)
    origins = [record.origin for record in t.journal.trials()]
    assert origins == ["point a", "point b, time 2 with these values", "random"]


@pytest.mark.parametrize(("slots", "design"), [(2, 5), (7, 7)])
def test_a_quasi_random_design_comes_first_until_all_slots_are_full_and_enough_is_known(
    tmp_path: Path, slots: int, design: int
) -> None:
    t = tuning(tmp_path, slots, sampler={"name": "tpe", "startup_trials": 5}, budget={"trials": 20})
    for number in range(9):
        t.start()
        if number < 5 or slots == 2:
            t.complete(number, 0.1 * number)
    begun = [record.origin == "quasi-random start-up of tpe" for record in t.journal.trials()]
    assert begun == [True] * design + [False] * (9 - design)
    assert [trial.params for trial in t.search.proposals.study.trials] == [
        record.params for record in t.journal.trials()
    ]


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp", "nsga2", "nsga3", "cmaes"])
def test_every_sampler_goes_through_a_sweep_with_branches(tmp_path: Path, sampler: str) -> None:
    objectives = [PIXEL_MSE] if sampler == "cmaes" else [PIXEL_MSE, LAYOUT_FD]
    t = tuning(
        tmp_path,
        max_concurrent=1,
        sampler={"name": sampler, "startup_trials": 3, "population": 3},
        objectives=objectives,
        budget={"trials": 9},
    )
    for number in range(9):
        t.start()
        t.complete(number, 0.1 * (number + 1) % 0.7, 3 + number % 4)
        if number == 4:
            t = resume(t)
    assert t.suggest() == FINISHED
    records = t.journal.trials()
    assert len({json.dumps(record.params, sort_keys=True) for record in records}) == 9, "none is drawn twice"
    branches = {record.params["loss.kl.control"] for record in records}
    assert branches == {"fixed", "capacity"}
    for record in records:
        assert ("loss.kl.sigma" in record.params) == (record.params["loss.kl.control"] == "fixed")


def test_a_grid_is_gone_through_once_and_ends_the_sweep(tmp_path: Path) -> None:
    space = {
        WIDTH: [8, 16],
        "loss.kl": {
            "one_of": {
                "fixed": {"sigma": {"low": 0.1, "high": 0.3, "step": 0.1}},
                "adaptive": {"target": [5, 10], "rate": 0.05},
            }
        },
    }
    t = tuning(tmp_path, space=space, sampler={"name": "grid"}, budget={"trials": 100})
    for number in range(4):
        t.start()
        t.complete(number)
    t = resume(t)
    for number in range(4, 10):
        assert t.start() == [number]
        t.complete(number)
    assert t.suggest() == FINISHED
    params = [tuple(sorted(record.params.items())) for record in t.journal.trials()]
    assert len(set(params)) == 10 == t.sweep.space.size()


def test_sobol_points_cover_every_branch_and_range_evenly(tmp_path: Path) -> None:
    t = tuning(tmp_path, sampler={"name": "qmc"}, budget={"trials": 64})
    t.start(0)
    for _ in range(64):
        assert isinstance(t.search.proposals.draw(), int)
    records = t.journal.trials()
    assert Counter(record.params["loss.kl.control"] for record in records) == {"fixed": 32, "capacity": 32}
    quarters = Counter(int(4 * (math.log10(record.params[LR]) + 4) / 2) for record in records)
    assert quarters == {0: 16, 1: 16, 2: 16, 3: 16}


def test_known_points_of_earlier_sweeps_teach_the_sampler_and_are_no_trials(tmp_path: Path) -> None:
    sweep = make_sweep(sampler={"name": "tpe", "startup_trials": 2})
    journal = make_journal(tmp_path)
    params = {LR: 1e-3, WIDTH: 8, "loss.kl.control": "fixed", "loss.kl.sigma": 0.2}
    metrics = {PIXEL_MSE: 0.1, LAYOUT_FD: 2.0}
    journal.set_meta(Meta.WARM_START, json.dumps([{"params": params, "metrics": metrics}] * 2))
    t = Tuning(sweep, journal)
    assert t.start() == [0]
    assert "start-up" not in t.journal.trial(0).origin, "two results are known"
    study = build_study(sweep, journal)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2 + [TrialState.RUNNING]
    assert study.trials[0].values == [0.1, 2.0]
    t.complete(0)
    assert t.search.proposals.study.trials[2].state == TrialState.COMPLETE
    t = resume(t)
    assert t.start() == [1]


# --- Objectives and constraints ---------------------------------------------------------------------------------------


def test_constraints_reach_the_sampler_and_decide_who_is_best(tmp_path: Path) -> None:
    text = "val/kl_per_dim <= 1"
    t = tuning(tmp_path, constraints=[text], sampler={"name": "tpe"})
    t.journal.set_meta(Meta.BASELINES, json.dumps(BASELINES))
    t.start(3)
    t.report(0, with_kl(480, 0.01, 1, kl=1.5))
    t.report(1, with_kl(480, 0.05, 5, kl=0.5))
    t.complete(2, 0.02, 2)  # without any KL, as a deterministic encoder
    assert [t.told(n).constraints[text] for n in range(3)] == [0.5, -0.5, 1.0]
    assert build_study(t.sweep, t.journal).trials[0].constraints == {"diverged": -1.0, text: 0.5}
    found = standings(t.sweep, t.journal)
    assert (found.best[0].number, found.front, found.infeasible) == (1, {1}, {0, 2})


def test_early_stopping_by_one_named_metric_of_two(tmp_path: Path) -> None:
    asha = {"name": "asha", "min_steps": 120, "reduction_factor": 2, "metric": LAYOUT_FD}
    t = tuning(tmp_path, scheduler=asha)
    t.start(2)
    t.report(0, evaluation(120, mse=0.9, fd=1))
    t.report(1, evaluation(120, mse=0.1, fd=2))
    assert [t.journal.outcome(n) for n in (0, 1)] == ["running", "pruned"], "both are on the front"


def test_median_stopping(tmp_path: Path) -> None:
    t = tuning(
        tmp_path,
        objectives=[PIXEL_MSE],
        scheduler={"name": "median", "min_steps": 80, "min_trials": 3},
    )
    t.start(5)
    for step in (40, 80):
        for number, mse in enumerate((0.1, 0.2, 0.3)):
            t.report(number, evaluation(step, mse))
    assert [t.journal.outcome(n) for n in range(3)] == ["running"] * 3, "too few others"
    t = resume(t)
    t.start(5)
    t.report(3, evaluation(40, 0.9))
    t.report(4, evaluation(40, 0.15))
    t.report(3, evaluation(80, 0.25))
    t.report(4, evaluation(80, 0.9))
    assert [t.journal.outcome(n) for n in (3, 4)] == ["pruned", "running"], "its best so far counts, not its last"
    assert t.journal.trial(3).reason == f"{PIXEL_MSE} 0.25 worse than the median 0.2 at step 80"


# --- Things that do not go together -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": {"name": "cmaes"}}, "sampler.name: cmaes has one objective, but objectives names 2"),
        (
            {"scheduler": {"name": "median", "min_steps": 80}},
            "scheduler: metric must say which objective median looks at",
        ),
        (
            {"sampler": {"name": "tpe"}, "scheduler": {"name": "pbt", "every": 120, "metric": PIXEL_MSE}},
            "scheduler.name: pbt changes parameters during training, which would mislead sampler.name tpe",
        ),
        (
            {"scheduler": {"name": "pbt", "every": 120, "metric": PIXEL_MSE}, "confirm": {"top": 1, "seeds": 2}},
            "confirm: repeats a trial with the parameters that it began with",
        ),
        (
            {"sampler": {"name": "cmaes"}, "objectives": [PIXEL_MSE], "constraints": ["val/kl <= 3"]},
            "constraints: cannot reach sampler.name cmaes",
        ),
        ({"constraints": ["val/kl < 3"]}, "must look like 'val/kl_per_dim <= 1', but got 'val/kl < 3'"),
        ({"constraints": ["val/nothing <= 3"]}, "must bound one of val/pixel_mse"),
        ({"sampler": {"name": "grid"}}, "has infinitely many values, so there is no grid"),
        ({"scheduler": {"name": "pbt", "every": 50, "metric": PIXEL_MSE}}, "must be a multiple of base.evaluate.every"),
        (
            {"scheduler": {"name": "pbt", "every": 120, "metric": PIXEL_MSE}, "space": {"model.width": [8, 16]}},
            "scheduler.name: pbt needs a parameter of loss or optimizer in the space",
        ),
        ({"resources": {"gpu": 1.5}}, "must be at most 1, or a whole number"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_sweep(sweep_data(**changes), "toy")
