from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle
from ray.tune.schedulers import TrialScheduler
from sweeps import BASELINES, evaluation, make_journal, make_sweep
from tuning import resume, tuning

from search.config.strategies import MOST_WAITING
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.outbox import Outbox
from search.journal.records import Cause, RungRecord
from search.running.messages import Assignment, Ended, Evaluated, Started, to_result
from search.running.tuner import make_search
from search.storage.place import Place
from search.strategy.stopping import Rungs
from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE, Evaluation

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


# --- Rungs ------------------------------------------------------------------------------------------------------------


def verdicts(rungs: Rungs, values: list[tuple[float, ...]], rung: int = 0) -> list[bool]:
    return [rungs.judge(trial, rung, 120, value).kept for trial, value in enumerate(values)]


def test_the_first_arrival_goes_on() -> None:
    assert Rungs((120,), 4).judge(0, 0, 120, (1e9,)) == RungRecord(0, 0, 120, (1e9,), True)


def test_a_rung_keeps_the_best_of_those_that_came() -> None:
    # Kept when the place is at most ceil(n / 3): n = 1 2 3 -> 1, 4 5 6 -> 2, 7 -> 3
    values = [(5.0,), (6.0,), (4.0,), (4.5,), (4.9,), (3.0,), (4.4,)]
    places = [1, 2, 1, 2, 3, 1, 3]
    limits = [1, 1, 1, 2, 2, 2, 3]
    expected = [place <= limit for place, limit in zip(places, limits, strict=True)]
    assert verdicts(Rungs((120,), 3), values) == expected


def test_the_order_of_arrival_decides() -> None:
    assert verdicts(Rungs((120,), 2), [(1.0,), (2.0,), (3.0,), (4.0,)]) == [True, False, False, False]
    assert verdicts(Rungs((120,), 2), [(4.0,), (3.0,), (2.0,), (1.0,)]) == [True, True, True, True]


def test_a_tie_with_the_best_goes_on() -> None:
    assert verdicts(Rungs((120,), 2), [(1.0,), (1.0,)]) == [True, True]


def test_two_objectives_by_front_then_by_crowding() -> None:
    values = [(0.0, 8.0), (4.0, 0.0), (5.0, 9.0), (1.0, 4.0), (3.0, 2.0), (1.1, 3.9)]
    # The third is dominated. The fourth is on the front of three, alone in the middle: place 3 of 4, and 2 may go on.
    # The fifth is place 3 or 4 of 5, and 3 may go on: crowding (4-1)/4 + (4-0)/8 = 1.25 against the fourth's 1.5.
    # The sixth is the most crowded on the front: place 5 of 6.
    assert verdicts(Rungs((120,), 2), values) == [True, True, False, False, False, False]
    # As the fourth of four, in a rung that keeps ceil(5/2) = 3, the middle one goes on.
    assert verdicts(Rungs((120,), 2), [*values[:3], (6.0, 9.0), values[3]])[-1]


def test_rungs_are_judged_apart() -> None:
    rungs = Rungs((120, 240), 2)
    assert rungs.judge(0, 0, 120, (1.0,)).kept
    assert rungs.judge(1, 1, 240, (2.0,)).kept, "the first at its rung"


def test_reached_is_the_highest_rung_not_judged() -> None:
    rungs = Rungs((120, 240), 2)
    assert [rungs.reached(0, step) for step in (40, 119, 120, 160, 239, 240, 300)] == [None, None, 0, 0, 0, 1, 1]
    rungs.judge(0, 0, 120, (1.0,))
    assert [rungs.reached(0, step) for step in (120, 160, 240)] == [None, None, 1]
    rungs.judge(0, 1, 240, (1.0,))
    assert [rungs.reached(0, step) for step in (120, 240, 400)] == [None] * 3
    assert rungs.reached(1, 120) == 0, "another trial"
    assert Rungs((), 2).reached(0, 1000) is None


def test_rebuilt_from_records_the_verdicts_are_the_same() -> None:
    values = [(float(7 * i % 11), float(5 * i % 13)) for i in range(20)]
    whole = verdicts(Rungs((120,), 3), values)
    first = Rungs((120,), 3)
    records = [first.judge(trial, 0, 120, value) for trial, value in enumerate(values[:10])]
    again = Rungs((120,), 3, records)
    assert [again.reached(trial, 120) for trial in range(10)] == [None] * 10
    kept = [again.judge(10 + index, 0, 120, value).kept for index, value in enumerate(values[10:])]
    assert [record.kept for record in records] + kept == whole
    assert 0 < sum(whole) < 20


def test_a_stopped_trial_is_kept_after_all_once_enough_worse_ones_came() -> None:
    rungs = Rungs((120,), 3)
    assert verdicts(rungs, [(1.0,), (2.0,), (3.0,)]) == [True, False, False]
    assert [record.trial for record in rungs.waiting()] == [1, 2], "the best first"
    assert not any(rungs.would_be_kept(record) for record in rungs.waiting())
    rungs.judge(3, 0, 120, (4.0,))
    second, *others = rungs.waiting()
    assert (second.trial, rungs.would_be_kept(second)) == (1, True), "the second of four, of whom two are kept"
    assert not any(rungs.would_be_kept(record) for record in others)
    rungs.take_back(second)
    assert [record.trial for record in rungs.waiting()] == [2, 3]
    assert rungs.dropped(1) is None
    assert rungs.reached(1, 120) is None, "it is not judged there again"


def test_only_the_best_stopped_trials_wait() -> None:
    rungs = Rungs((120,), 3)
    verdicts(rungs, [(0.0,), *((float(value),) for value in (9, 3, 7, 5, 8, 4, 6))])
    assert [record.objectives[0] for record in rungs.waiting()] == [3, 5, 6, 7][:MOST_WAITING]


def test_trials_wait_for_the_highest_rung_first() -> None:
    rungs = Rungs((120, 240), 2)
    for trial, value in enumerate((1.0, 2.0)):
        rungs.judge(trial, 0, 120, (value,))
        rungs.judge(10 + trial, 1, 240, (value,))
    assert [record.trial for record in rungs.waiting()] == [11, 1]


# --- The scheduler ----------------------------------------------------------------------------------------------------


class Sweeping:
    """A scheduler over a real journal, and what Tune would tell it."""

    def __init__(self, journal: Journal, objectives: tuple[str, ...] = (PIXEL_MSE, LAYOUT_FD)) -> None:
        self.journal = journal
        self.stop = False
        sweep = make_sweep(objectives=objectives)
        _, self.scheduler = make_search(sweep, journal, Place.of(journal.path.parent, journal), 10, lambda: self.stop)

    def add(self, number: int) -> None:
        self.journal.add_trial(number, {}, "threads: auto", "random")
        self.journal.start_attempt(number)

    def tell(self, number: int, result: dict[str, Any]) -> str:
        assignment = Assignment(number, 1, False, False, "", "", "", "", "", None, gpu=0.0, seconds=60.0)
        trial = SimpleNamespace(config=assignment.to_config(), trial_id=f"tune-{number}")
        return self.scheduler.on_trial_result(None, trial, result)

    def report(self, number: int, found: Evaluation) -> str:
        return self.tell(number, to_result(Evaluated(found)) | {"training_iteration": 1})

    def outcome(self, number: int) -> tuple[str, str]:
        trial = self.journal.trial(number)
        return trial.outcome, trial.reason


@pytest.fixture
def sweeping(tmp_path: Path) -> Sweeping:
    sweeping = Sweeping(make_journal(tmp_path))
    for number in range(3):
        sweeping.add(number)
    return sweeping


def test_started_writes_configuration_and_environment(sweeping: Sweeping) -> None:
    assert sweeping.tell(0, to_result(Started("threads: 1", {"host": "a"}, from_step=0))) == CONTINUE
    assert sweeping.journal.trial(0).config == "threads: 1"
    assert sweeping.journal.environment(0)["host"] == "a"


def test_crashed_keeps_the_traceback_and_leaves_the_outcome_to_the_searcher(sweeping: Sweeping) -> None:
    assert sweeping.tell(0, to_result(Ended(Cause.CRASHED, "Traceback\nOSError: disk"))) == CONTINUE
    assert [attempt.error for attempt in sweeping.journal.failures(0)] == ["Traceback\nOSError: disk"]
    assert sweeping.outcome(0) == ("running", "")


def test_completed(sweeping: Sweeping) -> None:
    assert sweeping.report(0, evaluation(480, outcome="completed")) == STOP
    assert sweeping.outcome(0) == ("completed", "")
    assert sweeping.journal.evaluations(0)[480] == {PIXEL_MSE: 0.5, LAYOUT_FD: 5.0}


def test_diverged(sweeping: Sweeping) -> None:
    assert sweeping.report(0, evaluation(130, outcome="diverged", reason="loss/kl is nan at step 130")) == STOP
    assert sweeping.outcome(0) == ("diverged", "loss/kl is nan at step 130")
    assert sweeping.journal.rungs() == [], "a diverged trial is not judged at a rung"


def test_pruned(sweeping: Sweeping) -> None:
    assert sweeping.report(0, evaluation(40, mse=9)) == CONTINUE
    assert sweeping.report(0, evaluation(120, mse=0.1, fd=1)) == CONTINUE
    assert sweeping.report(1, evaluation(120, mse=0.2, fd=2)) == STOP
    assert sweeping.outcome(1) == ("pruned", "not among the best 1/2 of rung 0 at step 120")
    assert sweeping.report(2, evaluation(140, mse=0.05, fd=3)) == CONTINUE
    assert sweeping.report(2, evaluation(160, mse=9, fd=9)) == CONTINUE, "judged once at a rung"
    assert sweeping.journal.rungs() == [
        RungRecord(0, 0, 120, (0.1, 1.0), True),
        RungRecord(1, 0, 120, (0.2, 2.0), False),
        RungRecord(2, 0, 140, (0.05, 3.0), True),
    ]


def test_one_objective_is_judged_by_it_alone(tmp_path: Path) -> None:
    sweeping = Sweeping(make_journal(tmp_path), (LAYOUT_FD,))
    for number, fd in enumerate((2.0, 3.0)):
        sweeping.add(number)
        sweeping.report(number, evaluation(120, mse=-fd, fd=fd))
    assert [record.kept for record in sweeping.journal.rungs()] == [True, False]
    assert sweeping.journal.rungs()[0].objectives == (2.0,)


def test_interrupted(sweeping: Sweeping) -> None:
    sweeping.report(0, evaluation(120, mse=0.1, fd=1))
    sweeping.stop = True
    assert sweeping.report(0, evaluation(160)) == STOP
    assert sweeping.outcome(0) == ("interrupted", "stopped at step 160")
    assert sweeping.report(1, evaluation(480, outcome="completed")) == STOP
    assert sweeping.outcome(1) == ("completed", ""), "what has ended by itself was not interrupted"
    assert sweeping.report(2, evaluation(120, mse=9, fd=9)) == STOP
    assert sweeping.outcome(2)[0] == "pruned", "nor what a rung stops"


@pytest.mark.parametrize("outcome", ["running", "completed", "diverged"])
def test_a_report_twice_changes_nothing(sweeping: Sweeping, outcome: Any) -> None:
    found = evaluation(120, outcome=outcome, reason="r" if outcome == "diverged" else "")
    first = sweeping.report(0, found)
    journal = sweeping.journal
    before = journal.trials(), journal.rungs(), Outbox(journal).points_after(0, 100)
    assert sweeping.report(0, found) == first
    assert (
        sweeping.journal.trials(),
        sweeping.journal.rungs(),
        Outbox(sweeping.journal).points_after(0, 100),
    ) == before


def test_a_verdict_that_the_driver_did_not_live_to_carry_out(sweeping: Sweeping) -> None:
    """Killed between the rung's record and the trial's outcome: the checkpoint's report comes again after a resume."""
    journal = sweeping.journal
    journal.add_evaluation(1, evaluation(120, mse=0.2))
    journal.add_rung(RungRecord(1, 0, 120, (0.2, 5.0), False))
    resumed = Sweeping(journal)
    assert resumed.report(1, evaluation(120, mse=0.2)) == STOP
    assert resumed.outcome(1) == ("pruned", "not among the best 1/2 of rung 0 at step 120")


def test_results_that_are_no_report_change_nothing(sweeping: Sweeping) -> None:
    for result in ({"done": True}, {"other": "started"}):
        assert sweeping.tell(0, result) == CONTINUE
    assert sweeping.outcome(0) == ("running", "")


def test_pickling_holds_no_handle(sweeping: Sweeping) -> None:
    assert vars(cloudpickle.loads(cloudpickle.dumps(sweeping.scheduler))) == {}
    assert sweeping.report(0, evaluation(40)) == CONTINUE, "and leaves the original as it is"


def test_the_median_is_that_of_others_up_to_the_same_step(tmp_path: Path) -> None:
    """Trials that are further on have better values by now: judged by those, every newcomer would be stopped."""
    median = {"name": "median", "min_steps": 120, "min_trials": 2, "metric": PIXEL_MSE, "audit": 0.0}
    t = tuning(tmp_path, scheduler=median)
    t.start(3)
    for number in range(2):
        for step, mse in ((40, 0.9), (80, 0.9), (120, 0.9), (160, 0.1), (200, 0.1)):
            t.report(number, evaluation(step, mse))
    for step in (40, 80, 120):
        t.report(2, evaluation(step, 0.8))
    assert t.journal.outcome(2) == "running", "better than 0.9, the mean of both until here"
    t.start()
    for step in (40, 80, 120):
        t.report(3, evaluation(step, 0.95))
    assert t.journal.outcome(3) == "pruned"
    assert "worse than the median 0.9 at step 120" in t.journal.trial(3).reason


def test_a_last_step_that_is_computed_again_with_another_value_is_noted(tmp_path: Path) -> None:
    """A resumed attempt reports the step of its checkpoint again, which is the last one that the journal has."""
    t = tuning(tmp_path)
    t.start()
    t.report(0, evaluation(40, 0.9))
    t.crash(0)
    t.start()
    t.report(0, evaluation(40, 0.8))
    assert t.journal.attempts(0)[-1].mismatches == 1
    assert t.journal.attempts(0)[-1].mismatch == "val/pixel_mse at step 40: 0.9, then 0.8"


def test_replicates_do_not_count_against_the_budget(tmp_path: Path) -> None:
    t = tuning(tmp_path, budget={"trials": 2}, confirm={"top": 1, "seeds": 2})
    t.journal.set_meta(Meta.BASELINES, json.dumps(BASELINES))
    t.start(2)
    for number in range(2):
        t.complete(number)
    t.start(2)
    assert (len(t.journal.trials()), t.journal.num_drawn()) == (4, 2)
    t = resume(t, budget={"trials": 3}, confirm={"top": 1, "seeds": 2})
    assert t.start(3) == [2, 3, 4], "one more trial is drawn"
    assert t.journal.trial(4).replicate_of is None
