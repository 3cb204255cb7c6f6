"""A sweep's questions in its report: read from MLflow, answered, in words, as data, and drawn."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from dataclasses import replace
from pathlib import Path

import asked
import lives
import numpy as np
import pytest
from mlflow import MlflowClient
from pages import page_data
from planted_answers import QUESTIONS, RATIO, PlantedAnswers, plant_answers
from planted_store import STEPS
from sweeps import BASELINES

from search.journal.journal import Journal
from search.journal.meta import Meta
from search.names import Artifact, Outcome, Tag
from search.questions.answers import Verdict, answers
from search.questions.blocks import BlockRun
from search.report.answered import Answered, answered, read_questions, without_blocks
from search.report.page import render
from search.report.reported import Reported, read_reported
from search.report.tables import to_csv, to_json
from search.standings.blocks import Blocks, asked_of
from search.tracking.evaluations import read_evaluations
from search.tracking.reader import find_sweep
from search.tracking.writer import MlflowWriter
from vaegan_core.evaluation import KL, PIXEL_MSE, PRIOR_SAMPLES


@pytest.fixture(scope="module")
def reported(client: MlflowClient) -> Reported:
    return read_reported(client, "asked")


@pytest.fixture(scope="module")
def page(client: MlflowClient, reported: Reported) -> str:
    return render(client, [reported])


def named(reported: Reported, name: str) -> Answered:
    return next(each for each in reported.answered if each.question.asked.name == name)


def test_the_planted_effects_are_found(reported: Reported) -> None:
    norm, prior = named(reported, "instance-norm").answers[0], named(reported, "prior-samples").answers[0]
    assert norm.average is not None
    assert norm.verdict is Verdict.DIFFERENCE
    assert norm.average.low < RATIO < norm.average.high
    assert (norm.divergences.level, norm.divergences.reference) == (3, 0)
    assert prior.verdict is Verdict.NO_PRACTICAL_EFFECT
    scheme, growth = named(reported, "scheme").answers[0], named(reported, "growth").answers
    assert scheme.average is not None
    assert scheme.average.low < -0.05 < scheme.average.high
    assert [answer.verdict for answer in growth] == [Verdict.DIFFERENCE, Verdict.NO_PRACTICAL_EFFECT]
    assert growth[0].average is not None
    assert growth[0].average.estimate == pytest.approx(0.9, abs=0.05)


def test_a_trial_of_a_block_says_what_its_run_has(client: MlflowClient, reported: Reported) -> None:
    run = named(reported, "scheme").runs[0]
    tagged = next(trial for trial in find_sweep(client, "asked").trials if trial.number == run.number)
    assert run.block == int(tagged.tags[Tag.BLOCK])
    assert run.levels == json.loads(tagged.tags[Tag.LEVELS])
    assert run.across == json.loads(tagged.tags[Tag.ACROSS])
    assert run.outcomes == {"scheme": tagged.final[KL]}
    assert run.nuisances == {name: float(tagged.params[name]) for name in QUESTIONS[0]["nuisances"]}


def test_trials_of_blocks_are_not_among_the_sweep_s(reported: Reported) -> None:
    assert len(reported.sweep.trials) == 6
    assert len({trial.number for each in reported.answered for trial in each.trials}) == 24 * 13


def test_a_block_with_trials_to_come_does_not_count(client: MlflowClient) -> None:
    sweep, questions = find_sweep(client, "asked"), read_questions(client, find_sweep(client, "asked"))
    evaluations = read_evaluations(client, sweep)
    last = [trial for trial in sweep.trials if trial.tags.get(Tag.BLOCK) == "23"]
    missing = {last[0].number}
    running = {last[-1].number}
    trials = tuple(
        dataclasses.replace(trial, outcome=Outcome.RUNNING) if trial.number in running else trial
        for trial in sweep.trials
        if trial.number not in missing
    )
    found = answered(questions, dataclasses.replace(sweep, trials=trials), evaluations, over=False)
    ended = {each.question.asked.name: each.answers[0].ended for each in found}
    assert ended == {"instance-norm": 23, "prior-samples": 23, "scheme": 24, "growth": 23}
    looks = {each.question.asked.name: each.answers[0].look for each in found}
    assert looks == {"instance-norm": 16, "prior-samples": 16, "scheme": 24, "growth": 16}


def test_a_failed_trial_tells_nothing_and_holds_up_nothing(client: MlflowClient) -> None:
    sweep, questions = find_sweep(client, "asked"), read_questions(client, find_sweep(client, "asked"))
    trials = tuple(
        dataclasses.replace(trial, outcome=Outcome.FAILED) if '"growth": 1' in trial.tags.get(Tag.LEVELS, "") else trial
        for trial in sweep.trials
    )
    found = answered(questions, dataclasses.replace(sweep, trials=trials), read_evaluations(client, sweep), over=True)
    instance, group = next(each.answers for each in found if each.question.asked.name == "growth")
    assert (instance.average, instance.ended) == (None, 24)
    assert group.average is not None


def test_a_question_that_is_asked_no_more_comes_last_and_counts_if_it_was_looked_at(client: MlflowClient) -> None:
    """Who takes questions out after looking may not claim more of the others; one that had no blocks costs nothing."""
    sweep, questions = find_sweep(client, "asked"), read_questions(client, find_sweep(client, "asked"))
    old = [dataclasses.replace(each, is_asked=each.asked.name == "scheme") for each in questions]
    never = dataclasses.replace(
        questions[0], asked=dataclasses.replace(questions[0].asked, name="never begun"), is_asked=False
    )
    evaluations = read_evaluations(client, sweep)
    before, after = (answered(each, sweep, evaluations, over=False) for each in (questions, [*old, never]))
    assert after[0].question.asked.name == "scheme"
    adjusted = [
        {each.question.asked.name: [answer.holm for answer in each.answers] for each in found}
        for found in (before, after)
    ]
    assert adjusted[1].pop("never begun") == [1.0]
    assert adjusted[0] == adjusted[1]


def test_before_the_first_block_there_is_no_answer(client: MlflowClient) -> None:
    found = read_reported(client, "begun")
    assert [answer.look for each in found.answered for answer in each.answers] == [0] * 5
    page = render(client, [found])
    assert "0 of the 8 blocks of the first look have ended" in page
    assert "0 so far (none)" in page


def test_a_damaged_record_is_said_to_be_damaged(client: MlflowClient) -> None:
    parent = plant_answers(client.tracking_uri, PlantedAnswers("damaged", blocks=0, pictures=False))
    client.log_text(parent, json.dumps([{"name": "norm"}]), Artifact.QUESTIONS)
    with pytest.raises(ValueError, match=r"questions\.json of run .* is damaged: KeyError"):
        read_reported(client, "damaged")


def test_a_sweep_without_questions_has_none(client: MlflowClient) -> None:
    found = read_reported(client, "planted")
    assert found.answered == ()
    assert found.sweep == without_blocks(found.sweep)
    assert 'id="answers"' not in render(client, [found])


def test_the_answers_come_first_and_nothing_in_them_is_markup(page: str) -> None:
    sections = [part.split('"')[0] for part in page.split('<section id="')[1:]]
    assert sections[:3] == ["answers", "one-question", "words"]
    assert "instance norm raises val/pixel_mse by" in page
    assert "<b>with</b> prior" not in page
    assert "&lt;b&gt;with&lt;/b&gt; prior samples has no practical effect on val/layout_fd" in page


def test_the_page_draws_what_the_blocks_say(page: str, reported: Reported) -> None:
    (sweep,) = page_data(page)["sweeps"]
    norm, _, _, growth = sweep["questions"]
    answer = named(reported, "instance-norm").answers[0]
    assert answer.average is not None
    assert norm["effects"][0]["average"] == pytest.approx(
        [answer.average.estimate, answer.average.low, answer.average.high], rel=1e-4
    )
    assert norm["blocks"] == list(range(24))
    ratios = np.array(norm["values"][1]) / np.array(norm["values"][0])
    assert norm["contrasts"][0] == pytest.approx(ratios.tolist(), rel=1e-3)
    assert np.exp(np.log(ratios).mean()) == pytest.approx(answer.average.estimate, rel=1e-3)
    assert norm["strongest"]["key"] == "optimizer.autoencoder.lr"
    assert norm["strongest"]["p"] < 0.001
    assert [len(curve) for curve in norm["best"]] == [24, 24]
    assert norm["best"][0][-1] == min(norm["values"][0])
    assert np.exp(np.log(norm["values"][0]).mean()) == pytest.approx(norm["best"][0][0], rel=1e-3)
    assert growth["best"] == []
    assert [curve["steps"] for curve in norm["curves"]["levels"]] == [list(STEPS)] * 2
    median = np.median([trial.final[PIXEL_MSE] for trial in named(reported, "instance-norm").trials if is_at(trial, 0)])
    assert norm["curves"]["levels"][0]["middle"][-1] == pytest.approx(median, rel=1e-4)


def is_at(trial: object, level: int) -> bool:
    return json.loads(trial.tags[Tag.LEVELS]).get("instance-norm") == level  # type: ignore[attr-defined]


def test_a_contact_sheet_shows_trials_that_differ_in_the_question_alone(page: str, reported: Reported) -> None:
    (sweep,) = page_data(page)["sweeps"]
    runs: dict[int, BlockRun] = {run.number: run for each in reported.answered for run in each.runs}
    pictures = sweep["question_pictures"]
    for question in sweep["questions"]:
        assert len(question["sheet"]["blocks"]) == 6
        for block, numbers in zip(question["sheet"]["blocks"], question["sheet"]["trials"], strict=True):
            shown = [runs[number] for number in numbers]
            assert [run.levels[question["name"]] for run in shown] == list(range(len(question["levels"])))
            assert {run.block for run in shown} == {block}
            others = [{k: v for k, v in run.levels.items() if k != question["name"]} for run in shown]
            assert all(other == others[0] for other in others)
            assert len({str(run.across) for run in shown}) == 1
            assert all(pictures[str(number)][PRIOR_SAMPLES]["steps"] == [STEPS[-1]] for number in numbers)


def test_json_and_csv_have_the_same_numbers(reported: Reported) -> None:
    (sweep,) = json.loads(to_json([reported]))["sweeps"]
    norm = sweep["questions"][0]
    answer = named(reported, "instance-norm").answers[0]
    assert answer.average is not None
    assert norm["answers"][0]["average"] == dataclasses.asdict(answer.average)
    assert norm["answers"][0]["sentence"].startswith("instance norm raises val/pixel_mse by")
    assert norm["answers"][0]["verdict"] == "difference"
    assert len(norm["blocks"]["contrasts"]) == 24
    in_blocks = [trial for trial in sweep["trials"] if trial["place"] is None]
    assert len(in_blocks) == 24 * 13
    rows = list(csv.DictReader(io.StringIO(to_csv([reported]))))
    assert len(rows) == 6 + 24 * 13
    last = rows[-1]
    assert (last["place"], last["tags.block"], last["tags.levels"]) == ("", "23", '{"growth": 2}')


def test_what_a_sweep_delivered_is_answered_as_its_journal_would(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The product's searcher, journal and writer, over made-up trainings."""
    monkeypatch.setattr(lives, "training", lambda config: [replace(each, images={}) for each in asked.planted(config)])
    questions = {"norm": asked.NORM, "scheme": asked.SCHEME | {"across": {"loss.kl.sigma": [0.1, 0.4]}}}
    sweep = asked.asking(questions, {"at_least": 2, "at_most": 3}, name="simulated")
    simulation = lives.Simulation(sweep, tmp_path, slots=3)
    journal = Journal(simulation.path)
    journal.set_meta(Meta.BASELINES, json.dumps(BASELINES))
    journal.set_meta(Meta.FRAMES, "frames")
    assert simulation.live(lives.KillAt())
    writer = MlflowWriter(sweep, journal, tmp_path, client.tracking_uri)
    writer.deliver()
    writer.finish("")
    blocks = Blocks(sweep, journal)
    from_journal = answers([asked_of(each) for each in blocks.asked], blocks.runs(), looks=blocks.looks, over=True)
    journal.close()
    found = read_reported(client, "simulated")
    from_mlflow = [answer for each in found.answered for answer in each.answers]
    assert str(from_mlflow) == str(from_journal)
    assert [answer.look for answer in from_mlflow] == [3, 3]
    assert all(answer.average for answer in from_mlflow)
    assert found.findings.command == "vaegan status simulated"
    assert "No trial has begun yet." not in found.findings.words
