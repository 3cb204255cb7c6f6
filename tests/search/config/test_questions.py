"""Questions in a sweep's YAML: every mistake at once, and the blocks that they become."""

from __future__ import annotations

import copy
from collections import Counter
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from asked import BASE, NORM, PRIOR, SCHEME, SPACE, asking

from search.config.design import Group, fraction, groups
from search.config.load import parse_sweep
from search.config.questions import QuestionConfig
from search.config.sweep import Sweep
from vaegan_core.problems import ConfigError
from vaegan_core.strict_yaml import parse_yaml

KL = {"factor": {"loss.kl.control": ["fixed", "capacity"]}, "outcome": "val/kl", "smallest_effect": 1.5}
BRANCH = {
    "loss.kl": {"one_of": {"fixed": {"sigma": [0.1, 0.3]}, "capacity": {"gamma": 1, "capacity_max": 9, "ramp": 1}}}
}


def one_group(sweep: Sweep) -> Group:
    [group] = sweep.groups
    return group


def problems(**changes: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        asking(**{"questions": {"q": NORM}} | changes)
    return dict(caught.value.problems)


# --- Mistakes ---------------------------------------------------------------------------------------------------------

MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"outcome": "val/pixel"}, "questions.q.outcome", "did you mean val/pixel_mse?"),
    ({"outcome": {"slop": "val/kl"}}, "questions.q.outcome.slop", "did you mean slope?"),
    ({"outcome": {"slope": "val/kl"}}, "questions.q.outcome", "must have 3 validations at least, but has 2"),
    ({"smallest_effect": 0.9}, "questions.q", "must be a ratio above 1, such as 1.25 for 25 %, but got 0.9"),
    ({"factr": 1}, "questions.q.factr", "did you mean factor?"),
    ({"labels": ["a"]}, "questions.q", "labels must be 2 different words"),
    ({"factor": {}}, "questions.q.factor", "at least 1"),
    ({"factor": {"model.encoder.norm": ["batch"]}}, "questions.q.factor.model.encoder.norm", "at least 2"),
    ({"factor": {"model.encoder.norm": ["batch", "batch"]}}, "questions.q", "different levels"),
    ({"factor": {"model.encoder.nrm": [1, 2]}}, "questions.q.factor.model.encoder.nrm", "did you mean norm?"),
    ({"factor": {"train.steps": [40, 80]}}, "questions.q.factor.train.steps", "set base.train.steps"),
    ({"factor": {"train": [{"steps": 40}, {"steps": 80}]}}, "questions.q.factor.train", "gives train.steps too"),
    ({"factor": {"evaluate": [{"every": 40}, {"every": 20}]}}, "questions.q.factor.evaluate", "set base.evaluate"),
    ({"factor": {"train.seed": [1, 2]}}, "questions.q.factor.train.seed", "on the same seed"),
    (
        {"factor": {"model.encoder.norm": ["batch", "instanc"]}},
        "questions.q.factor.model.encoder.norm",
        "but got 'instanc'; did you mean instance?",
    ),
    (
        {"factor": {"model.encoder.norm": ["batch", "group"], "model.width": [2, 4, 8]}},
        "questions.q",
        "model.encoder.norm has 2, model.width has 3",
    ),
    ({"across": {"loss.kl.sigma": [0, 1]}}, "questions.q.across", "different values above 0"),
    ({"across": {"loss.kl.sigma": [1, 2], "model.width": [2, 4]}}, "questions.q.across", "must be one setting"),
    ({"crossed": {"model.encoder.norm": ["batch", "group"]}}, "questions.q", "gives model.encoder.norm twice"),
    (
        {"across": {"loss.kl.sigma": [1, 2]}, "outcome": "val/active_units"},
        "questions.q",
        "outcome must be above 0 for a slope of its logarithm, but val/active_units may be 0 or less",
    ),
]


@pytest.mark.parametrize(("changes", "path", "message"), MISTAKES)
def test_each_mistake_is_one_problem_at_its_yaml_path(changes: dict[str, Any], path: str, message: str) -> None:
    found = problems(questions={"q": NORM | changes})
    assert message in found.pop(path)
    others = {"questions.q.outcome.slope"} if "slop" in str(changes) else set()
    assert found.keys() <= others


def test_an_outcome_without_a_logarithm_is_compared_by_differences() -> None:
    """A model whose posterior collapsed has 0 active units: a ratio would leave it out."""
    collapse = QuestionConfig.model_validate(NORM | {"outcome": "val/active_units", "smallest_effect": 0.5})
    assert (collapse.scale, QuestionConfig.model_validate(NORM).scale) == ("difference", "ratio")


def test_all_mistakes_of_all_questions_are_said_at_once() -> None:
    bad = {str(index): NORM | changes for index, (changes, _, _) in enumerate(MISTAKES)} | {"a b": NORM}
    found = problems(questions=bad, budget={"trials": -1})
    paths = [path.replace(".q", f".{index}") for index, (_, path, _) in enumerate(MISTAKES)]
    assert {*paths, "questions.a b", "budget.trials"} <= found.keys()


def test_a_sweep_needs_trials_or_questions() -> None:
    assert problems(questions={}) == {"budget.trials": "must be at least 1 in a sweep without questions, but got 0"}


def test_a_level_of_a_searched_branch_is_one_of_its_options() -> None:
    wrong = KL | {"factor": {"loss.kl.control": ["fixed", "adaptive"]}}
    found = problems(questions={"q": wrong}, space=SPACE | BRANCH)
    assert found == {"questions.q": "has a level that is not among the options of the space's branch"}


def test_a_question_read_back_is_the_same_question() -> None:
    sweep = asking({"a": NORM, "b": SCHEME | {"spread": 0.2, "crossed": {"model.width": [8, 16]}}})
    again = parse_sweep(parse_yaml(sweep.config.to_yaml()), "again")
    assert again.config == sweep.config
    assert {q.hash for q in again.config.questions.values()} == {q.hash for q in sweep.config.questions.values()}


def test_the_hash_is_of_the_text_without_the_guess() -> None:
    question = QuestionConfig.model_validate(NORM)
    assert QuestionConfig.model_validate(NORM | {"spread": 3}).hash == question.hash
    for change in ({"smallest_effect": 1.3}, {"outcome": "val/ssim"}, {"labels": ["a", "b"]}, {"alone": True}):
        assert QuestionConfig.model_validate(NORM | change).hash != question.hash


# --- Fractions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factors", range(2, 17))
def test_no_effect_is_mixed_up_with_one_of_one_or_two_others(factors: int) -> None:
    signs = 1 - 2 * np.array(fraction(factors))
    runs = len(signs)
    assert runs == {2: 4, 3: 8, 4: 8, **dict.fromkeys(range(5, 9), 16)}.get(factors, 32)
    assert len({tuple(row) for row in signs}) == runs
    for order in (1, 2, 3):
        for columns in combinations(range(factors), order):
            assert signs[:, columns].prod(axis=1).sum() == 0


def test_signs_are_turned_around_at_random_in_each_block() -> None:
    """Then how three questions act together, which a fraction mixes up with a fourth, averages out over blocks."""
    more = {
        "width": "model.width",
        "norm": "model.decoder.norm",
        "feature": "loss.feature.recon",
        "ema": "train.ema_decay",
    }
    values = {"width": [8, 16], "norm": ["batch", "group"], "feature": [0, 0.5], "ema": [0.9, 0.99]}
    questions = {name: NORM | {"factor": {key: values[name]}} for name, key in more.items()} | {"encoder": NORM}
    group = one_group(asking(questions))
    assert group.size == 16
    mixed = []
    for block in range(100):
        signs = np.array([[1 - 2 * level for level in trial.levels.values()] for trial in group.trials(block)])
        assert (signs.sum(axis=0) == 0).all()
        mixed.append(float(np.mean(signs[:, 0] * signs[:, 1] * signs[:, 2] * signs[:, 4])))
    assert set(mixed) == {-1.0, 1.0}
    assert abs(fmean(mixed)) < 0.3


# --- Blocks -----------------------------------------------------------------------------------------------------------


def test_the_trials_of_a_block_differ_in_levels_alone() -> None:
    sweep = asking({"norm": NORM, "prior": PRIOR})
    group = one_group(sweep)
    drawn = []
    for block in range(40):
        trials = group.trials(block)
        assert sorted(tuple(trial.levels.values()) for trial in trials) == [(0, 0), (0, 1), (1, 0), (1, 1)]
        rests = []
        for trial in trials:
            config = sweep.trial(trial.values)
            assert config.model.encoder.norm == NORM["factor"]["model.encoder.norm"][trial.levels["norm"]]
            assert config.loss.generator.prior == (0, 0.01)[trial.levels["prior"]]
            rest = {
                key: value for key, value in trial.values.items() if key not in {**NORM["factor"], **PRIOR["factor"]}
            }
            rests.append(rest)
            assert trial.params == {**{name: rest[name] for name in SPACE}, **levels_of(trial.values)}
        assert all(rest == rests[0] for rest in rests)
        assert (rests[0]["train.seed"], rests[0]["train.seeding"]) == (2_000_000 + block, "separate")
        drawn.append((rests[0]["optimizer.autoencoder.lr"], rests[0]["model.width"]))
    logs = np.log10([lr for lr, _ in drawn])
    assert logs.min() < -3.5
    assert logs.max() > -2.5
    assert abs(logs.mean() + 3) < 3 * (2 / 12**0.5) / 40**0.5
    assert 10 < Counter(width for _, width in drawn)[8] < 30


def levels_of(values: dict[str, Any]) -> dict[str, Any]:
    return {key: values[key] for key in {**NORM["factor"], **PRIOR["factor"]}}


def test_a_parameter_with_a_prior_is_drawn_from_it() -> None:
    prior = {"prior": {"value": 1e-3, "sure": "high"}}
    space = SPACE | {"optimizer.autoencoder.lr": {"low": 1e-4, "high": 1e-2, "log": True} | prior}
    group = one_group(asking({"norm": NORM}, space=space))
    logs = np.log10([group.trials(block)[0].values["optimizer.autoencoder.lr"] for block in range(40)])
    assert abs(logs.mean() + 3) < 0.1
    assert 0.05 < logs.std() < 0.2, "5 % of two decades"


def test_what_a_question_changes_is_not_drawn_for_its_blocks() -> None:
    space = SPACE | {"model.encoder.norm": ["batch", "group", "none"]}
    shared, own = asking({"norm": NORM, "scheme": SCHEME}, space=space).groups
    assert shared.nuisances == list(SPACE)
    assert own.nuisances == list(space)
    norms = [trial.params["model.encoder.norm"] for block in range(20) for trial in own.trials(block)]
    assert set(norms) == {"batch", "group", "none"}


def test_a_level_of_a_searched_branch_brings_what_is_drawn_below_it() -> None:
    sweep = asking({"kl": KL}, space=SPACE | BRANCH)
    assert one_group(sweep).nuisances == [*SPACE, "loss.kl.sigma"]
    first, second = sorted(one_group(sweep).trials(0), key=lambda trial: trial.levels["kl"])
    assert first.params["loss.kl.sigma"] in (0.1, 0.3)
    assert "loss.kl.sigma" not in second.values
    assert (second.values["loss.kl.gamma"], sweep.trial(second.values).loss.kl.control) == (1, "capacity")


def test_a_level_may_replace_a_part_of_the_base() -> None:
    parts = [{"control": "fixed", "beta": 2}, {"control": "capacity", "gamma": 1, "capacity_max": 9, "ramp": 1}]
    sweep = asking({"kl": KL | {"factor": {"loss.kl": parts}}}, space=SPACE | BRANCH)
    kls = {trial.levels["kl"]: sweep.trial(trial.values).loss.kl for trial in one_group(sweep).trials(0)}
    assert (kls[0].control, kls[0].beta, kls[1].control) == ("fixed", 2, "capacity")


def test_each_level_runs_at_each_value_across_and_crossed() -> None:
    sweep = asking({"scheme": SCHEME | {"crossed": {"optimizer.autoencoder.lr": [1e-3, 4e-4]}}})
    trials = one_group(sweep).trials(3)
    cells = {(t.levels["scheme"], t.across["scheme"], t.values["optimizer.autoencoder.lr"]) for t in trials}
    assert len(trials) == len(cells) == 12
    assert one_group(sweep).nuisances == ["model.width"]


def test_questions_share_trials_where_they_can() -> None:
    questions = {
        "norm": NORM,
        "prior": PRIOR,
        "again": NORM | {"factor": {"model.encoder.norm": ["none", "group"]}},
        "three": NORM | {"factor": {"model.decoder.norm": ["none", "group", "batch"]}},
        "alone": NORM | {"factor": {"loss.feature.recon": [0, 0.5]}, "alone": True},
        # R1 is refused with batch norm in D, so these two cannot be combined
        "r1": NORM | {"factor": {"loss.discriminator.r1": [0, 1]}},
        "batch": NORM | {"factor": {"model.discriminator.norm": ["none", "batch"]}},
        "scheme": SCHEME,
    }
    found = [list(group.questions) for group in asking(questions).groups]
    assert found == [["norm", "prior", "r1"], ["again"], ["three"], ["alone"], ["batch"], ["scheme"]]


def test_a_draw_that_a_level_cannot_have_is_drawn_again() -> None:
    """R1 is refused with batch norm in D."""
    space = SPACE | {"model.discriminator.norm": ["none", "batch"]}
    question = NORM | {"factor": {"loss.discriminator.r1": [0, 1]}}
    group = one_group(asking({"r1": question}, space=space))
    for block in range(20):
        assert {trial.params["model.discriminator.norm"] for trial in group.trials(block)} == {"none"}


def test_the_order_within_blocks_is_random_and_always_the_same() -> None:
    group = one_group(asking({"norm": NORM}))
    firsts = [group.trials(block)[0].levels["norm"] for block in range(60)]
    assert 15 < sum(firsts) < 45
    assert [group.trials(block)[0].levels["norm"] for block in range(60)] == firsts
    other = groups(asking({"norm": NORM}, blocks={"seed": 1}).setup, dict(group.questions))[0]
    assert other.trials(0)[0].values != group.trials(0)[0].values


def test_levels_are_named_by_what_they_change() -> None:
    assert QuestionConfig.model_validate(NORM).level_names == ("encoder.norm batch", "encoder.norm instance")
    assert QuestionConfig.model_validate(NORM | {"labels": ["BN", "IN"]}).level_names == ("BN", "IN")
    fixed = NORM | {"factor": {"train.update": ["joint", "per_term"], "loss.kl.control": ["fixed", "fixed"]}}
    assert QuestionConfig.model_validate(fixed).level_names == ("train.update joint", "train.update per_term")


def test_steps_of_blocks_are_their_own() -> None:
    sweep = asking({"norm": NORM}, blocks={"steps": 200})
    assert {sweep.trial(trial.values).train.steps for trial in one_group(sweep).trials(0)} == {200}
    assert sweep.steps == BASE["train"]["steps"]
    data = copy.deepcopy(NORM) | {"outcome": {"slope": "val/kl"}, "smallest_effect": 0.1}
    assert asking({"growth": data}, blocks={"steps": 200}).block_steps == 200
