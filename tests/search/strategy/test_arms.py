"""Suggestions that come from what was known before, or from around the best."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from sweeps import make_sweep
from tuning import Tuning, resume, tuning

from search.config.distributions import at_quantile, near, quantile_of
from search.config.space import Prior
from search.config.space_parser import parse_space
from search.strategy.arms import around, beliefs, choose_arm, draw_near
from search.strategy.evidence import Evidence

LR, BETA = "optimizer.autoencoder.lr", "optimizer.autoencoder.beta1"
DISTRIBUTIONS: list[BaseDistribution] = [
    FloatDistribution(1e-4, 1e-1, log=True),
    FloatDistribution(-1.0, 3.0),
    FloatDistribution(0.0, 1.0, step=0.25),
    IntDistribution(8, 64, step=8),
    IntDistribution(2, 200, log=True),
    CategoricalDistribution(["a", "b", "c"]),
]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_a_quantile_leads_back_to_its_value(distribution: BaseDistribution) -> None:
    for u in np.linspace(0.01, 0.99, 7):
        value = at_quantile(distribution, float(u))
        assert at_quantile(distribution, quantile_of(distribution, value)) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_the_surer_the_closer(distribution: BaseDistribution) -> None:
    center = at_quantile(distribution, 0.4)
    distance = {
        sure: np.mean(
            [
                abs(quantile_of(distribution, near(distribution, center, sure, u)) - 0.4)
                for u in np.linspace(0, 0.999, 99)
            ]
        )
        for sure in ("low", "medium", "high")
    }
    assert distance["high"] < distance["medium"] < distance["low"] < 0.27, "evenly: 0.26"
    values = {near(distribution, center, "low", u) for u in np.linspace(0, 0.9999, 999)}
    assert quantile_of(distribution, max(values, key=lambda v: quantile_of(distribution, v))) > 0.8, "all is possible"


def test_priors_are_read_from_every_kind_of_parameter() -> None:
    space, problems = parse_space(
        {
            LR: {"low": 1e-4, "high": 1e-2, "log": True, "prior": {"value": 1e-3, "sure": "high"}},
            "model.width": {"choices": [8, 16], "prior": {"value": 16, "sure": "low"}},
            "loss.kl": {
                "one_of": {"fixed": {"sigma": 0.1}, "adaptive": {"target": 5, "rate": 0.1}},
                "prior": {"value": "fixed", "sure": "medium"},
            },
        }
    )
    assert problems == []
    assert space.priors() == {
        LR: Prior(value=1e-3, sure="high"),
        "model.width": Prior(value=16, sure="low"),
        "loss.kl.control": Prior(value="fixed", sure="medium"),
    }
    draws = [draw_near(space, space.priors(), Random(seed)) for seed in range(200)]
    assert Counter(draw["loss.kl.control"] for draw in draws)["fixed"] > 130, "1/2 and half of the rest"
    assert np.std(np.log10([draw[LR] for draw in draws])) < 0.15
    assert all("loss.kl.sigma" not in draw for draw in draws), "fixed values are no parameters"


@pytest.mark.parametrize(
    ("raw", "path", "message"),
    [
        ({"low": 0.1, "high": 1, "prior": {"value": 2, "sure": "low"}}, "prior.value", "must be 0.1 to 1, but got 2"),
        ({"low": 0.1, "high": 1, "prior": {"value": 1}}, "prior.sure", "is required, but is not given"),
        ({"low": 0.1, "high": 1, "prior": 3}, "prior", "must be a mapping of keys, but got 3"),
        (
            {"low": 0.1, "high": 1, "prior": {"value": 1, "sure": "very"}},
            "prior.sure",
            "must be 'low', 'medium' or 'high', but got 'very'",
        ),
        (
            {"choices": [0.1, 1], "prior": {"value": 2, "sure": "low"}},
            "prior.value",
            "must be one of 0.1, 1, but got 2",
        ),
        ({"choices": [1, -1], "prior": {"value": 1, "sure": "low"}}, "choices.1", "must be greater than 0, but got -1"),
        ({"choices": [], "prior": {"value": 2, "sure": "low"}}, "", "must list at least one value"),
        ({"choices": [1], "low": 2}, "low", "is not a key beside choices"),
    ],
)
def test_what_is_wrong_with_a_prior(raw: dict[str, Any], path: str, message: str) -> None:
    _, problems = parse_space({"loss.kl.sigma": raw})
    assert problems == [(f"space.loss.kl.sigma.{path}".rstrip("."), message)]


def test_points_are_centers_too() -> None:
    sweep = make_sweep(points={"known": {LR: 1e-3}})
    assert beliefs(sweep) == {"near point known": {LR: Prior(value=1e-3, sure="medium")}}


def test_around_a_trial_most_values_stay() -> None:
    space = make_sweep().space
    params = {LR: 1e-3, "model.width": 16, "loss.kl.control": "fixed", "loss.kl.sigma": 0.2}
    draws = [around(space, params, Random(seed)) for seed in range(200)]
    assert Counter(draw["model.width"] for draw in draws)[16] > 160
    assert np.std(np.log10([draw[LR] for draw in draws])) < 0.15


def test_the_arm_that_fares_better_is_asked_more_often_and_an_unknown_one_is_tried() -> None:
    results = {"good": (30, 30), "bad": (2, 60), "new": (0, 0)}
    asked = Counter(choose_arm(results, Random(seed)) for seed in range(500))
    assert asked["bad"] == 0
    assert min(asked["good"], asked["new"]) > 150


FIXED = dict(make_sweep().config.base) | {"loss": {"kl": {"control": "fixed", "beta": 1}}}
TPE = {"name": "tpe", "startup_trials": 2}


def one_number(directory: Path, prior: float, **changes: Any) -> Tuning:
    """A sweep over the learning rate and a parameter without effect; the best learning rate is 10^-2."""
    space = {
        LR: {"low": 1e-4, "high": 1.0, "log": True, "prior": {"value": prior, "sure": "high"}},
        BETA: {"low": 0.0, "high": 0.9},
    }
    directory.mkdir(exist_ok=True)
    settings = {"space": space, "base": FIXED, "scheduler": {"name": "none"}, "budget": {"trials": 1000}}
    return tuning(directory, 1, sampler={"name": "tpe", "startup_trials": 10}, **settings | changes)


def run(t: Tuning, count: int) -> list[tuple[str, float]]:
    """(origin, distance from the best learning rate in decades) of each of `count` trials."""
    found = []
    for _ in range(count):
        (number,) = t.start()
        record = t.journal.trial(number)
        distance = abs(np.log10(record.params[LR]) + 2)
        t.complete(number, 0.1 + distance, 10 + 10 * distance)
        found.append((record.origin, distance))
    return found


def test_a_good_prior_helps_and_a_bad_one_is_given_up(tmp_path: Path) -> None:
    good = run(one_number(tmp_path / "good", 1e-2), 60)
    bad = run(one_number(tmp_path / "bad", 1.0), 60)
    asked = {
        name: Counter(origin for origin, _ in trials[20:])["prior"] for name, trials in (("good", good), ("bad", bad))
    }
    assert asked["good"] > 2 * asked["bad"]
    assert asked["bad"] <= 8
    assert min(distance for _, distance in good[:10]) < 0.1, "at once"
    assert np.median([distance for _, distance in bad[40:]]) < 0.5, "and still the good values are found"


def test_trials_that_repeat_values_count_for_their_arm(tmp_path: Path) -> None:
    t = tuning(tmp_path, 1, space={"model.width": [8, 16]}, base=FIXED, sampler=TPE, scheduler={"name": "none"})
    for _ in range(6):
        (number,) = t.start()
        t.complete(number, 0.1 + 0.01 * number)
    origins = [record.origin.split(", time ") for record in t.journal.trials()]
    standing = Evidence(t.sweep, t.journal).standing()
    for arm in ("tpe", "around the best"):
        assert sum(standing.count(arm)) == sum(origin == arm for origin, *_ in origins)
    assert any(times for origin, *times in origins if origin in ("tpe", "around the best"))


def test_half_of_the_start_up_is_drawn_from_what_is_believed_and_a_resumed_sweep_repeats_nothing(
    tmp_path: Path,
) -> None:
    t = one_number(tmp_path, 1e-2)
    run(t, 5)
    t = resume(t)
    t.search.max_concurrent = 1
    run(t, 5)
    origins = Counter(record.origin for record in t.journal.trials())
    assert origins == {"prior": 5, "quasi-random start-up of tpe": 5}
    assert len({record.params[BETA] for record in t.journal.trials()}) == 10


def test_where_a_constraint_is_violated_no_trial_is_good_and_few_are_tried(tmp_path: Path) -> None:
    """The higher the learning rate the better, but the constraint holds up to 0.5 only."""
    settings = {"space": {LR: {"low": 0.001, "high": 1.0}}, "base": FIXED, "scheduler": {"name": "none"}}
    sampler = {"name": "tpe", "startup_trials": 10, "seed": 1}
    only = {"objectives": ["val/pixel_mse"], "constraints": ["val/layout_fd <= 5"], "budget": {"trials": 1000}}
    t = tuning(tmp_path, 1, sampler=sampler, **settings, **only)
    for _ in range(70):
        (number,) = t.start()
        lr = t.journal.trial(number).params[LR]
        t.complete(number, 1.1 - lr, 10 * lr)
    evidence = Evidence(t.sweep, t.journal)
    standing = evidence.standing()
    assert 0 < len(standing.good) < len(standing.others)
    assert max(seen.params[LR] for seen in standing.good) <= 0.5
    late = [record.params[LR] for record in t.journal.trials()[20:]]
    assert sum(lr <= 0.5 for lr in late) > 0.5 * len(late)


def test_where_every_trial_violates_a_constraint_none_is_good(tmp_path: Path) -> None:
    t = one_number(tmp_path, 1e-2, constraints=["val/layout_fd <= 1"])
    run(t, 20)
    standing = Evidence(t.sweep, t.journal).standing()
    assert (len(standing.good), len(standing.others)) == (0, 20)
    assert all(not origin.startswith("around the best") for origin, _ in run(t, 20))
