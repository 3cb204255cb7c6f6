from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray import cloudpickle
from ray.tune.experiment import Trial
from ray.tune.search import Searcher
from sweeps import evaluation, make_sweep
from tuning import Tuning, resume, tuning

from search.running.searcher import LOOK_SECONDS
from search.strategy.study import build_study
from vaegan_core.config.trial import parse_trial
from vaegan_core.strict_yaml import parse_yaml

FINISHED = Searcher.FINISHED
ONE = ("val/pixel_mse",)
BOTH = ("val/pixel_mse", "val/layout_fd")


# --- Suggesting -------------------------------------------------------------------------------------------------------


def test_an_assignment_is_all_that_a_worker_needs(tmp_path: Path) -> None:
    t = tuning(tmp_path)
    assignment = t.suggest()
    where = {"storage": str(tmp_path), "prefix": "", "folder": "trials/00000/attempt-1", "state": None}
    assert where.items() <= assignment.items()
    assert assignment["scratch"] == f"{tmp_path}/trials/00000"
    keys = {"trial", "attempt", "alone", "apart", "config", "scratch", "gpu", "seconds", "step"}
    assert set(assignment) == keys | where.keys()
    assert (assignment["trial"], assignment["attempt"]) == (0, 1)
    assert assignment["seconds"] == 3600
    config = parse_trial(parse_yaml(assignment["config"]))
    record = t.journal.trial(0)
    assert record.params["optimizer.autoencoder.lr"] == config.optimizer.autoencoder.lr
    assert record.params["model.width"] == config.model.width
    assert record.params == t.told(0).params
    assert (record.outcome, record.origin) == ("running", "random")


def test_max_concurrent_is_respected(tmp_path: Path) -> None:
    t = tuning(tmp_path, max_concurrent=2)
    t.start(2)
    assert t.suggest() is None
    assert len(t.journal.trials()) == 2
    t.complete(0)
    assert t.suggest()["trial"] == 2
    assert t.suggest() is None


def test_finished_only_when_the_budget_is_used_up_and_nothing_is_live(tmp_path: Path) -> None:
    t = tuning(tmp_path, budget={"trials": 2})
    t.start(2)
    assert t.suggest() is None
    t.complete(0)
    assert t.suggest() is None
    t.crash(1)
    assert t.start() == [1], "a retry costs no new trial"
    t.complete(1)
    assert t.suggest() == FINISHED
    t = resume(t)
    assert t.suggest() == FINISHED
    t = resume(t, budget={"trials": 3})
    assert t.start() == [2], "extended"
    assert t.suggest() is None


def test_finished_when_a_stop_is_requested(tmp_path: Path) -> None:
    t = tuning(tmp_path)
    t.start(2)
    t.stop = True
    assert t.suggest() == FINISHED
    t.report(0, evaluation(40))
    assert t.journal.outcome(0) == "interrupted"
    t.die(1)
    assert (t.journal.outcome(1), t.journal.failures(1)) == ("interrupted", [])
    assert [t.told(number).state for number in (0, 1)] == [TrialState.RUNNING] * 2


def test_a_trial_that_tune_drops_before_it_begins_is_tried_again_and_counts_against_nobody(tmp_path: Path) -> None:
    t = tuning(tmp_path, max_concurrent=2, budget={"trials": 2})
    t.start(2)
    t.begin(0)
    statuses = {"tune-1": Trial.RUNNING, "tune-2": Trial.ERROR, "tune-0": Trial.ERROR}
    t.search.tune_trials = [SimpleNamespace(trial_id=id, status=status) for id, status in statuses.items()]
    t.search._looked -= LOOK_SECONDS
    assert t.start() == [1]
    assert t.suggest() is None, "both slots are taken"
    assert [attempt.cause for attempt in t.journal.attempts(1)] == ["stopped", ""]
    assert t.journal.failures(1) == []
    t.complete(0)
    t.complete(1)
    assert t.suggest() == FINISHED


def test_named_points_come_first_and_once(tmp_path: Path) -> None:
    points: dict[str, dict[str, Any]] = {
        "seed": {"loss.kl.control": "fixed", "loss.kl.sigma": 0.25, "model.width": 16},
        "other": {"loss.kl.control": "capacity"},
        "third": {"model.width": 8},
    }
    t = tuning(tmp_path, points=points)
    t.start(2)
    first, second = t.journal.trials()
    assert (first.origin, second.origin) == ("point seed", "point other")
    assert points["seed"].items() <= first.params.items()
    assert 1e-4 <= first.params["optimizer.autoencoder.lr"] <= 1e-2, "what a point leaves open is sampled"
    assert second.params["loss.kl.control"] == "capacity"
    t = resume(t)
    assert t.start(4) == [0, 1, 2, 3]
    assert [record.origin for record in t.journal.trials()] == ["point seed", "point other", "point third", "random"]


def test_origin_says_when_tpe_has_begun(tmp_path: Path) -> None:
    t = tuning(tmp_path, max_concurrent=3, sampler={"name": "tpe", "startup_trials": 2})
    t.start(2)
    t.report(0, evaluation(120))
    t.report(1, evaluation(130, outcome="diverged", reason="nan"))
    t.start(2)
    design = "quasi-random start-up of tpe"
    assert [record.origin for record in t.journal.trials()] == [design, design, design, "tpe"], "it fills three slots"


def test_a_resumed_sweep_does_not_draw_the_same_again(tmp_path: Path) -> None:
    t = tuning(tmp_path)
    t.start()
    t.complete(0)
    t = resume(t)
    t.start()
    assert t.journal.trial(0).params != t.journal.trial(1).params
    again = tuning(tmp_path / "again")
    again.start()
    assert again.journal.trial(0).params == t.journal.trial(0).params, "the first draw follows from the seed"


# --- Early stopping ---------------------------------------------------------------------------------------------------


def test_a_stopped_trial_goes_on_before_a_new_one_is_drawn_when_it_proves_good(tmp_path: Path) -> None:
    t = tuning(tmp_path, objectives=ONE, scheduler={"name": "asha", "min_steps": 120, "reduction_factor": 2})
    t.start(3)
    for number, mse in enumerate((0.1, 0.2)):
        t.report(number, evaluation(120, mse), saved=True)
    assert [t.journal.outcome(number) for number in range(3)] == ["running", "pruned", "running"]
    t.report(2, evaluation(120, 0.3))
    assert t.journal.outcome(1) == "pruned", "a verdict is taken back when there is a free slot"
    again = t.suggest()
    assert (again["trial"], again["attempt"]) == (1, 2)
    assert t.journal.outcome(1) == "running"
    t.report(1, evaluation(120, 0.2))  # what its checkpoint holds is reported again
    assert t.journal.outcome(1) == "running", "it is not judged there twice"
    assert t.start() == [3]
    t.complete(1, 0.05)
    assert t.journal.outcome(1) == "completed"
    assert [record.kept for record in t.journal.rungs()] == [True, True, False]


def test_the_second_chances_of_a_resumed_sweep_are_those_of_an_uninterrupted_one(tmp_path: Path) -> None:
    t = tuning(tmp_path, objectives=ONE, scheduler={"name": "asha", "min_steps": 120, "reduction_factor": 2})
    t.start(3)
    for number, mse in enumerate((0.1, 0.2, 0.3)):
        t.report(number, evaluation(120, mse), saved=True)
    t = resume(t)
    assert t.start(2) == [0, 1], "the one that ran, then the one that proved good"
    assert t.journal.outcome(1) == "running"


@pytest.mark.parametrize("why", ["switched off", "no checkpoint"])
def test_there_is_no_second_chance(tmp_path: Path, why: str) -> None:
    asha = {"name": "asha", "min_steps": 120, "reduction_factor": 2, "second_chance": why != "switched off"}
    t = tuning(tmp_path, objectives=ONE, scheduler=asha)
    t.start(3)
    for number, mse in enumerate((0.1, 0.2, 0.3)):
        t.report(number, evaluation(120, mse), saved=why == "switched off")
    assert t.start() == [3]


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_audited_trials_are_never_stopped(tmp_path: Path, scheduler: str) -> None:
    config = {"name": scheduler, "min_steps": 120, "audit": 0.5}
    t = tuning(tmp_path, objectives=ONE, scheduler=config, budget={"trials": 30})
    for number in t.start(10):
        t.report(number, evaluation(120, 0.1 + 0.1 * number))
    for number in t.start(10 - len(t.journal.trials("running"))):
        t.report(number, evaluation(120, 9.0 + number))
    stopped = {record.number for record in t.journal.trials("pruned")}
    audited = {record.number for record in t.journal.trials() if t.sweep.is_audited(record.number)}
    assert stopped
    assert len(audited - {0}) > 2
    assert not stopped & audited
    if scheduler == "asha":
        assert {record.trial for record in t.journal.rungs() if not record.kept} & audited, "the verdict is on record"


# --- Telling ----------------------------------------------------------------------------------------------------------


def run_every_outcome(t: Tuning) -> None:
    """Trials 0 to 5: completed, pruned, diverged, failed, interrupted, running."""
    t.start(6)
    for number in (0, 4, 5):
        t.report(number, evaluation(40, mse=0.9, fd=9))
    t.report(0, evaluation(120, mse=0.1, fd=1))
    t.report(1, evaluation(40, mse=0.8, fd=8))
    t.report(1, evaluation(120, mse=0.7, fd=7))
    t.report(2, evaluation(40, mse=0.6, fd=6))
    t.report(2, evaluation(77, outcome="diverged", reason="loss/kl is inf at step 77"))
    t.crash(3)
    assert t.start() == [3]
    t.crash(3)
    t.complete(0, 0.05, 0.5)
    t.stop = True
    t.report(4, evaluation(80, mse=0.85, fd=8.5))
    t.stop = False


OUTCOMES = ["completed", "pruned", "diverged", "failed", "interrupted", "running"]
COMPLETE, PRUNED, FAIL, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING


def test_what_optuna_is_told_with_two_objectives(tmp_path: Path) -> None:
    t = tuning(tmp_path)
    run_every_outcome(t)
    assert [record.outcome for record in t.journal.trials()] == OUTCOMES
    trials = t.search.proposals.study.trials
    assert [trial.state for trial in trials] == [COMPLETE, PRUNED, PRUNED, FAIL, RUNNING, RUNNING]
    assert trials[0].values == [0.05, 0.5]
    assert [trial.values for trial in trials[1:]] == [None] * 5
    assert [trial.intermediate_values for trial in trials] == [{}] * 6, "Optuna refuses them with several objectives"
    feasible, infeasible = {"diverged": -1.0}, {"diverged": 1.0}
    assert [trial.constraints for trial in trials] == [feasible, feasible, infeasible, feasible, {}, {}]
    assert [trial.user_attrs.get("outcome") for trial in trials[:4]] == OUTCOMES[:4]
    assert [trial.number for trial in t.search.proposals.study.best_trials] == [0]


def test_what_optuna_is_told_with_one_objective(tmp_path: Path) -> None:
    t = tuning(tmp_path, objectives=ONE)
    run_every_outcome(t)
    assert [record.outcome for record in t.journal.trials()] == OUTCOMES
    trials = t.search.proposals.study.trials
    assert [trial.state for trial in trials] == [COMPLETE, PRUNED, PRUNED, FAIL, RUNNING, RUNNING]
    assert trials[0].values == [0.05]
    assert [trial.intermediate_values for trial in trials] == [
        {40: 0.9, 120: 0.1, 480: 0.05},
        {40: 0.8, 120: 0.7},
        {40: 0.6},
        {},
        {},
        {},
    ]
    assert [trial.constraints.get("diverged") for trial in trials] == [-1.0, -1.0, 1.0, -1.0, None, None]
    assert t.search.proposals.study.best_trial.number == 0


@pytest.mark.parametrize("sampler", ["random", "tpe"])
@pytest.mark.parametrize("objectives", [ONE, BOTH])
def test_the_study_rebuilt_from_the_journal_equals_the_live_one(
    tmp_path: Path, objectives: tuple[str, ...], sampler: str
) -> None:
    def facts(study: optuna.Study) -> list[tuple[Any, ...]]:
        return [
            (t.number, t.state, t.params, t.distributions, t.values, t.constraints, t.intermediate_values)
            for t in study.trials
        ]

    t = tuning(tmp_path, objectives=objectives, sampler={"name": sampler, "startup_trials": 1}, budget={"trials": 12})
    run_every_outcome(t)
    t.start(2)
    t.complete(6, 0.2, 2)
    rebuilt = build_study(t.sweep, t.journal)
    assert facts(rebuilt) == facts(t.search.proposals.study)
    assert rebuilt.directions == t.search.proposals.study.directions
    resumed = resume(t)
    live = resumed.start(4)
    assert live[:3] == [4, 5, 7]
    for number in live:
        resumed.complete(number, 0.01 * (1 + number), 1 / (1 + number))
    assert facts(build_study(resumed.sweep, resumed.journal)) == facts(resumed.search.proposals.study)
    assert [trial.state for trial in resumed.search.proposals.study.trials][4:] == [COMPLETE] * 5


def test_tpe_keeps_away_from_where_trials_diverged(tmp_path: Path) -> None:
    lr = "optimizer.autoencoder.lr"
    t = tuning(
        tmp_path,
        space={lr: {"low": 1e-4, "high": 1e-2, "log": True}},
        base=copy.deepcopy(make_sweep().config.base) | {"loss": {"kl": {"control": "fixed", "beta": 1}}},
        sampler={"name": "tpe", "startup_trials": 8},
        scheduler={"name": "none"},
        budget={"trials": 40},
    )
    for number in range(40):
        t.start()
        value = t.journal.trial(number).params[lr]
        if value > 1e-3:
            t.report(number, evaluation(50, outcome="diverged", reason="nan"))
        else:
            t.complete(number, 1e-4 / value, 1e-4 / value)
    late = [trial for trial in t.journal.trials() if trial.number >= 20]
    assert sum(trial.outcome == "diverged" for trial in late) <= 10, "half of the random ones would"


# --- Failures, and going on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_a_crashed_trial_is_the_same_trial_again_until_it_has_failed(tmp_path: Path, retries: int) -> None:
    t = tuning(tmp_path, retries=retries)
    first = t.suggest()
    for attempt in range(2, retries + 2):
        t.crash(0)
        assert t.journal.outcome(0) == "running"
        again = t.suggest()
        assert again == first | {"attempt": attempt, "folder": f"trials/00000/attempt-{attempt}"}
        assert t.told(0).state == TrialState.RUNNING
    t.crash(0)
    record = t.journal.trial(0)
    assert (record.outcome, record.reason) == ("failed", "OSError: disk")
    assert len(t.journal.failures(0)) == retries + 1
    assert t.told(0).state == TrialState.FAIL
    assert t.start() == [1]


def test_a_dead_worker_counts_as_a_crash(tmp_path: Path) -> None:
    t = tuning(tmp_path, retries=0)
    t.start()
    t.begin(0)
    t.die(0)
    assert (t.journal.outcome(0), t.journal.trial(0).reason) == ("failed", "the worker process died")


def test_a_crash_while_stopping_is_still_a_crash(tmp_path: Path) -> None:
    t = tuning(tmp_path, retries=0)
    t.start()
    t.stop = True
    t.crash(0)
    assert t.journal.outcome(0) == "failed"


def test_a_retry_that_completes_is_told_once(tmp_path: Path) -> None:
    t = tuning(tmp_path, objectives=ONE)
    t.start()
    t.report(0, evaluation(40, mse=0.9))
    t.crash(0)
    t.start()
    t.report(0, evaluation(40, mse=0.9))
    t.complete(0, 0.3)
    assert (t.told(0).state, t.told(0).values) == (COMPLETE, [0.3])
    assert t.told(0).intermediate_values == {40: 0.9, 480: 0.3}
    assert [attempt.cause for attempt in t.journal.attempts(0)] == ["crashed", ""]


def test_unfinished_trials_come_first_after_a_resume(tmp_path: Path) -> None:
    t = tuning(tmp_path, points={"late": {"model.width": 8}}, budget={"trials": 6})
    t.start(4)
    t.complete(1)
    t.stop = True
    t.report(2, evaluation(40))  # Interrupted; 0 and 3 were running when the driver died.
    configs = [record.config for record in t.journal.trials()]
    t = resume(t)
    found = [t.suggest() for _ in range(3)]
    assert [(f["trial"], f["attempt"]) for f in found] == [(0, 2), (2, 2), (3, 2)]
    assert [f["config"] for f in found] == [configs[n] for n in (0, 2, 3)]
    assert [record.outcome for record in t.journal.trials()] == ["running", "completed", "running", "running"]
    assert t.journal.failures(0) == [], "the driver's death is not the trial's failure"
    assert t.start(2) == [4, 5]
    for number in (0, 2, 3, 4, 5):
        t.complete(number)
    assert t.suggest() == FINISHED
    assert [trial.state for trial in t.search.proposals.study.trials] == [COMPLETE] * 6


def test_pickling_holds_no_handle(tmp_path: Path) -> None:
    t = tuning(tmp_path)
    t.start()
    assert vars(cloudpickle.loads(cloudpickle.dumps(t.search))) == {}
    t.search.save_to_dir(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    t.complete(0)
    assert t.start() == [1]
