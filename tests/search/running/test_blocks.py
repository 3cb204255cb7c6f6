"""Blocks of trials that answer questions: beside a sampler or alone, never stopped early, killed at any moment."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import lives
import pytest
from asked import EFFECT, NORM, PRIOR, SCHEME, asking, planted
from flaky_mlflow import FlakyMlflow, writing_to
from lives import KillAt, Simulation
from ray.tune.search import Searcher
from sweeps import BASELINES, evaluation, make_journal
from tuning import Tuning, resume

from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.questions import register, registered
from search.names import Kind, Outcome, Tag
from search.questions.answers import Answer, Verdict, answers
from search.running.driver import anything_left
from search.standings.blocks import Blocks, asked_of, standing
from search.standings.progress import read_progress
from search.standings.standings import standings
from search.tracking.description import describe, run_name

FINISHED = Searcher.FINISHED
ASHA = {"name": "asha", "min_steps": 40, "reduction_factor": 2, "audit": 0.0}
TWO_GROUPS = {"norm": NORM, "scheme": SCHEME}
FEW = {"at_least": 2, "at_most": 3}


def simulate(sweep: Sweep, directory: Path, slots: int = 1) -> Simulation:
    directory.mkdir()
    simulation = Simulation(sweep, directory, slots)
    journal = Journal(simulation.path)
    journal.set_meta(Meta.BASELINES, json.dumps(BASELINES))
    journal.set_meta(Meta.FRAMES, "frames")
    journal.close()
    return simulation


def found(simulation: Simulation) -> list[Answer]:
    """The answers of a simulated sweep."""
    journal = Journal(simulation.path)
    blocks = Blocks(simulation.sweep, journal)
    answered = answers([asked_of(each) for each in blocks.asked], blocks.runs(), looks=blocks.looks, over=True)
    journal.close()
    return answered


def tune(directory: Path, sweep: Sweep, slots: int = 10) -> Tuning:
    return Tuning(sweep, make_journal(directory), slots)


def complete(t: Tuning, *numbers: int) -> None:
    """Ends trials with outcomes so different that nothing can be said of a question."""
    for number in numbers:
        t.report(number, evaluation(80, Random(number).lognormvariate(0, 1), 5.0, "completed"))


def complete_all(t: Tuning) -> list[int]:
    """Runs what is suggested, one after the other, until nothing is; the numbers of the trials."""
    numbers = []
    while isinstance(found := t.suggest(), dict):
        numbers.append(found["trial"])
        complete(t, found["trial"])
    return numbers


# --- Which trials run -------------------------------------------------------------------------------------------------


def test_blocks_alone_end_with_a_clear_answer_or_the_most_blocks(tmp_path: Path, monkeypatch: Any) -> None:
    """The planted effect is found with its ratio, and no effect is called that, both after the first look."""
    monkeypatch.setattr(lives, "training", planted)
    simulation = simulate(asking({"norm": NORM, "prior": PRIOR}, {"at_most": 24}), tmp_path / "sweep", slots=3)
    assert simulation.live(KillAt())
    norm, prior = found(simulation)
    assert norm.average is not None
    assert norm.average.low < EFFECT < norm.average.high
    assert (norm.verdict, norm.average.blocks) == (Verdict.DIFFERENCE, 8)
    assert prior.verdict == Verdict.NO_PRACTICAL_EFFECT
    journal = Journal(simulation.path)
    assert Counter(t.block.block for t in journal.trials() if t.block) == dict.fromkeys(range(8), 4)
    assert not anything_left(simulation.sweep, journal)
    assert [each.in_words() for each in standing(simulation.sweep, journal)] == [
        "norm: 8 blocks done, no more come; difference",
        "prior: 8 blocks done, no more come; no practical effect",
    ]
    journal.close()


def test_unclear_questions_go_on_eight_blocks_at_a_time_and_answered_ones_do_not(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(lives, "training", planted)
    hard = PRIOR | {"smallest_effect": 1.0001, "alone": True}
    simulation = simulate(asking({"norm": NORM, "prior": hard}, {"at_most": 20}), tmp_path / "sweep", slots=2)
    assert simulation.live(KillAt())
    norm, prior = found(simulation)
    assert (norm.ended, prior.ended, prior.verdict) == (8, 20, Verdict.NOT_ENOUGH)


def test_blocks_that_came_after_a_question_was_opened_again_do_not_change_what_had_opened_it(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """At 8 blocks norm has an answer, at 10 it has none any more, because of the other; a new driver finds the same."""
    seen: list[tuple[int, int]] = []

    def scripted(_: Any, runs: Any, **looks: Any) -> list[tuple[str, Verdict]]:
        norm, scheme = ({run.block for run in runs if name in run.levels} for name in TWO_GROUPS)
        assert looks["looks"] == (8, 16, 24, 32)
        seen.append((len(norm), len(scheme)))
        clear = (len(norm), len(scheme)) == (8, 8) or len(norm) > 8
        return [("norm", Verdict.DIFFERENCE if clear else Verdict.NOT_ENOUGH), ("scheme", Verdict.NOT_ENOUGH)]

    monkeypatch.setattr("search.standings.blocks.answers", scripted)
    monkeypatch.setattr("search.standings.blocks.verdicts_of", dict)
    sweep = asking(TWO_GROUPS, {"at_least": 8, "at_most": 32})
    t = tune(tmp_path, sweep, slots=1)
    complete_all(t)
    assert seen == [(8, 8), (8, 16), (24, 24)]
    assert Blocks(sweep, t.journal).done() == {"norm": 24, "scheme": 32}
    seen.clear()
    assert not Blocks(sweep, t.journal).left
    assert seen == [(8, 8), (8, 16), (24, 24)]


def test_blocks_run_beside_the_sampler_in_their_share(tmp_path: Path) -> None:
    t = tune(tmp_path, asking({"norm": NORM}, FEW | {"share": 0.25}, budget={"trials": 12}), slots=1)
    numbers = complete_all(t)
    in_blocks = [t.journal.trial(number).block is not None for number in numbers]
    assert in_blocks == [True, False, False, False] * 4 + [True] * 2
    assert (t.journal.num_drawn(), t.suggest()) == (12, FINISHED)


def test_groups_of_questions_come_forward_together(tmp_path: Path) -> None:
    t = tune(tmp_path, asking(TWO_GROUPS, FEW), slots=1)
    complete_all(t)
    first = [record.block.group for record in t.journal.trials()[:8] if record.block]
    assert Counter(first) == {0: 2, 1: 6}, "a block of each, 2 and 6 trials"


def test_nothing_is_added_until_all_of_a_look_has_ended(tmp_path: Path) -> None:
    t = tune(tmp_path, asking({"norm": NORM}, FEW))
    assert t.start(4) == [0, 1, 2, 3]
    complete(t, 0, 1, 3)
    assert t.suggest() is None
    complete(t, 2)
    assert t.start(2) == [4, 5]


# --- They stand apart -------------------------------------------------------------------------------------------------


def test_a_trial_of_a_block_is_never_stopped_early_and_stops_nobody(tmp_path: Path) -> None:
    """It has no place at a rung, so that the sampler's first trial there is kept, whatever it is compared with."""
    t = tune(tmp_path, asking({"norm": NORM}, scheduler=ASHA, budget={"trials": 2}))
    t.start(6)
    of_blocks = [record.number for record in t.journal.trials() if record.block]
    own = [record.number for record in t.journal.trials() if not record.block]
    for number in of_blocks:
        t.report(number, evaluation(40, 0.1, 0.1))
    t.report(own[0], evaluation(40, 0.9, 9.0))
    assert t.journal.outcome(own[0]) == Outcome.RUNNING
    t.report(of_blocks[0], evaluation(40, 0.99, 99.0))
    assert {t.journal.outcome(number) for number in of_blocks} == {Outcome.RUNNING}
    assert {record.trial for record in t.journal.rungs()} == {own[0]}
    again = resume(t)
    assert {record.trial for record in again.journal.rungs()} == {own[0]}


def test_median_stopping_does_not_count_them_after_a_restart(tmp_path: Path) -> None:
    median = {"name": "median", "min_steps": 40, "min_trials": 1, "metric": "val/pixel_mse", "audit": 0.0}
    t = tune(tmp_path, asking({"norm": NORM}, scheduler=median, budget={"trials": 4}))
    t.start(4)
    for record in t.journal.trials():
        if record.block:
            t.report(record.number, evaluation(40, 0.1, 0.1))
    t = resume(t)
    t.start(4)
    own = next(record.number for record in t.journal.trials() if not record.block)
    t.report(own, evaluation(40, 0.9, 9.0))
    assert t.journal.outcome(own) == Outcome.RUNNING


def test_the_sampler_learns_nothing_of_them_and_they_rank_nowhere(tmp_path: Path) -> None:
    t = tune(tmp_path, asking({"norm": NORM}, sampler={"name": "tpe", "startup_trials": 2}, budget={"trials": 6}))
    t.journal.set_meta(Meta.BASELINES, json.dumps(BASELINES))
    t.start(6)
    for record in t.journal.trials():
        t.report(record.number, evaluation(80, 0.01 if record.block else 0.5, 5.0, "completed"))
    own = [record.number for record in t.journal.trials() if record.block is None]
    assert [trial.number for trial in t.search.proposals.study.trials] == list(range(len(own)))
    evidence = t.search.proposals.evidence
    evidence.refresh()
    assert len(evidence) == len(own) == 3
    assert {record.number for record in standings(t.sweep, t.journal).best} == set(own)
    assert read_progress(t.sweep, t.journal).best["val/pixel_mse"] == (own[0], 0.5)
    t = resume(t)
    assert len(t.search.proposals.study.trials) == len(t.search.proposals.evidence) == len(own)
    complete_all(t)
    assert t.journal.num_drawn() == 6


# --- Killed, retried, extended ----------------------------------------------------------------------------------------

KILLS = 12
"""Commits, of some 70 to 110, at which each sweep is killed; test_storms.py does it at many more."""
KILLED: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "alone": ({"norm": NORM}, {}, 1),
    "two at a time": ({"norm": NORM, "prior": PRIOR}, {"blocks": {"at_least": 2, "at_most": 2}}, 2),
    "beside a sampler": ({"norm": NORM}, {"budget": {"trials": 3}, "scheduler": ASHA}, 1),
}


@pytest.mark.parametrize("name", KILLED)
def test_killed_at_any_commit_a_question_ends_with_the_same_trials_and_answer(name: str, tmp_path: Path) -> None:
    questions, changes, slots = KILLED[name]
    sweep = asking(questions, **{"blocks": FEW} | changes)
    whole, commits = simulate(sweep, tmp_path / "whole", slots), KillAt()
    assert whole.live(commits)
    expected = whole.record()
    random = Random(name)
    for number in random.sample(range(commits.seen), KILLS):
        after = bool(random.getrandbits(1))
        cut = simulate(sweep, tmp_path / f"{number}", slots)
        assert not cut.live(KillAt(number, after))
        assert cut.live(KillAt())
        assert cut.record() == expected, f"killed {'after' if after else 'before'} commit {number}"
        assert str(found(cut)) == str(found(whole))


def test_several_kills_leave_the_answer_as_it_is(tmp_path: Path, monkeypatch: Any) -> None:
    """Through two looks, whatever the trials' order of arrival has become."""
    monkeypatch.setattr(lives, "training", planted)
    sweep = asking({"norm": NORM, "prior": PRIOR | {"smallest_effect": 1.02, "alone": True}}, {"at_most": 16})
    whole = simulate(sweep, tmp_path / "whole", slots=3)
    assert whole.live(KillAt())
    for seed in range(2):
        random, cut = Random(seed), simulate(sweep, tmp_path / str(seed), slots=3)
        while not cut.live(KillAt(random.randrange(5, 60), after=True)):
            pass
        assert str(found(cut)) == str(found(whole))


def test_a_trial_of_a_block_is_retried_and_its_block_waits_for_it(tmp_path: Path) -> None:
    t = tune(tmp_path, asking({"norm": NORM}, FEW, retries=0))
    t.start(4)
    complete(t, 1, 2, 3)
    t.crash(0)
    assert t.journal.outcome(0) == Outcome.FAILED
    assert [run.number for run in Blocks(t.sweep, t.journal).runs()] == [1, 2, 3]
    assert t.journal.forgive_failed() == [0]
    assert [run.block for run in Blocks(t.sweep, t.journal).runs()] == [1, 1]
    t = resume(t)
    again = t.suggest()
    assert (again["trial"], again["attempt"]) == (0, 2)


def test_more_blocks_can_be_added_to_a_sweep_that_was_complete(tmp_path: Path) -> None:
    t = tune(tmp_path, asking({"norm": NORM}, {"at_least": 2, "at_most": 2}))
    assert len(complete_all(t)) == 4
    assert t.suggest() == FINISHED
    path = t.journal.path
    t.journal.close()
    more = asking({"norm": NORM}, {"at_least": 2, "at_most": 5})
    t = Tuning(more, Journal(path))
    assert len(complete_all(t)) == 6
    assert tuple(registered(t.journal)[0].looks) == (2, 2), "what was planned at first stays on record"


# --- Registration -----------------------------------------------------------------------------------------------------


def test_questions_are_registered_before_the_first_trial_and_only_once(tmp_path: Path) -> None:
    sweep = asking(TWO_GROUPS)
    t = tune(tmp_path, sweep)
    first = registered(t.journal)
    assert [(each.name, each.group, each.hash) for each in first] == [
        (name, group, sweep.config.questions[name].hash) for group, name in enumerate(TWO_GROUPS)
    ]
    assert t.journal.trials() == []
    t.start(1)
    assert first[0].time <= t.journal.trial(0).created
    assert register(sweep, t.journal) == []
    assert registered(resume(t).journal) == first


def test_a_changed_question_is_a_new_one_and_an_unchanged_one_goes_on(tmp_path: Path) -> None:
    t = tune(tmp_path, asking(TWO_GROUPS, {"at_least": 2, "at_most": 2}))
    before = len(complete_all(t))
    path = t.journal.path
    t.journal.close()
    changed = {"norm": NORM | {"smallest_effect": 1.5}, "scheme": SCHEME}
    sweep = asking(changed, {"at_least": 2, "at_most": 2})
    t = Tuning(sweep, Journal(path))
    new = complete_all(t)
    assert len(new) == 4
    assert {tuple(t.journal.trial(number).block.levels) for number in new} == {("norm (2)",)}
    assert [each.name for each in registered(t.journal)] == ["norm", "scheme", "norm (2)"]
    assert [each.name for each in Blocks(sweep, t.journal).asked] == ["scheme", "norm (2)"]
    assert before == 16
    assert len(t.journal.trials()) == 20


# --- What MLflow and people get ---------------------------------------------------------------------------------------


def test_mlflow_has_the_questions_before_any_trial_and_each_trial_its_place(tmp_path: Path, monkeypatch: Any) -> None:
    simulation = simulate(asking(TWO_GROUPS, FEW), tmp_path / "sweep")
    server = FlakyMlflow(Random(0))
    order: list[str] = []
    create, log_text = FlakyMlflow.create_run, FlakyMlflow.log_text
    monkeypatch.setattr(FlakyMlflow, "create_run", lambda *a, **k: order.append("run") or create(*a, **k))
    monkeypatch.setattr(FlakyMlflow, "log_text", lambda s, r, t, n: order.append(n) or log_text(s, r, t, n))
    assert simulation.live(KillAt())
    journal = Journal(simulation.path)
    with writing_to(server) as make:
        make(simulation.sweep, journal, simulation.directory, server.tracking_uri).deliver()
    assert order[:2] == ["run", "questions.json"]
    runs = {int(run.tags[Tag.TRIAL]): run for run in server.active() if Tag.TRIAL in run.tags}
    for trial in journal.trials():
        tags, place = runs[trial.number].tags, trial.block
        assert place is not None
        assert (tags[Tag.KIND], tags[Tag.BLOCK]) == (Kind.TRIAL, str(place.block))
        assert json.loads(tags[Tag.LEVELS]) == place.levels
        assert json.loads(tags.get(Tag.ACROSS, "{}")) == place.across
        assert ("scheme" in place.levels) == bool(place.across)
    journal.close()


def test_the_sweep_s_description_says_how_far_the_questions_are(tmp_path: Path) -> None:
    t = tune(tmp_path, asking({"norm": NORM}, FEW))
    t.journal.set_meta(Meta.BASELINES, json.dumps(BASELINES))
    complete_all(t)
    current, asked = standings(t.sweep, t.journal), standing(t.sweep, t.journal)
    text = describe(t.sweep, current, t.journal.trials(), "finished", "", asked)
    assert "**toy**: finished. 6 trials of blocks: 6 completed.\n\n- norm: 3 blocks done, no more come; not" in text
    assert "Hypervolume" not in text
    assert run_name(t.sweep, t.journal.trials()[0]) in ("trial 0 · block 0 · norm", "trial 0 · block 0 · reference")


def test_progress_counts_the_blocks_up_to_the_next_look(tmp_path: Path) -> None:
    t = tune(tmp_path, asking({"norm": NORM}, budget={"trials": 4}))
    before = read_progress(t.sweep, t.journal)
    assert (before.wanted, before.expected_steps) == (4 + 16, 20 * 80)
    t.start(6)
    now = read_progress(t.sweep, t.journal)
    assert (now.wanted, now.expected_steps) == (before.wanted, before.expected_steps)
