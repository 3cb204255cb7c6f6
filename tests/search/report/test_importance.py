"""What mattered, on data where it is known: parameters with an effect are told, those without are not."""

from __future__ import annotations

import math

import numpy as np
from planted import KL, LR, SIGMA, WIDTH, Planted, drawn, flat_curve, planted

from search.report.findings import find, good_values
from search.report.importance import FEWEST_TRIALS, LEVEL, MOST_TRIALS, Column, holm, importances
from search.report.searched import Searched

NOISE = 0.3


def columns_of(random: np.random.Generator, count: int) -> list[Column]:
    """A range, a choice, a branch with a range in each half, and three ranges."""
    branch = random.integers(0, 2, count).astype(float)
    inner = [np.where(branch == half, random.random(count), np.nan) for half in (0, 1)]
    return [
        Column("range", random.random(count), choice=False),
        Column("choice", random.integers(0, 3, count).astype(float), choice=True),
        Column("branch", branch, choice=True),
        Column("inner", inner[0], choice=False),
        Column("other inner", inner[1], choice=False),
        *(Column(f"nothing {index}", random.random(count), choice=False) for index in range(3)),
    ]


def test_effects_are_told_and_parameters_without_one_are_not() -> None:
    random = np.random.default_rng(0)
    columns = columns_of(random, 120)
    by_name = {column.name: column.values for column in columns}
    values = (
        8 * (by_name["range"] - 0.4) ** 2
        + 0.8 * (by_name["choice"] == 1)
        + 2 * np.nan_to_num(by_name["inner"], nan=0.5)
        + NOISE * random.standard_normal(120)
    )
    found = {each.parameter: each for each in importances("y", columns, values)}
    assert {name for name, each in found.items() if each.told} == {"range", "choice", "inner"}
    assert all(0 <= each.low <= each.share <= each.high <= 1 for each in found.values())
    assert found["range"].share > 3 * max(found[f"nothing {index}"].share for index in range(3))
    assert all(each.objective == "y" for each in found.values())


def test_nothing_is_told_of_noise() -> None:
    told = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        found = importances("y", columns_of(random, 30), random.standard_normal(30), seed)
        told += any(each.told for each in found)
    assert told <= 2, "more often than in 5 %"


def test_a_sampler_that_concentrates_makes_nothing_matter() -> None:
    """A null parameter drawn near its values in good trials goes with the objective, but no more than that."""
    random = np.random.default_rng(1)
    good, null = [random.random()], [random.random()]
    values = [(good[0] - 0.5) ** 2]
    for _ in range(119):
        near = int(np.argsort(values)[: max(1, len(values) // 5)][-1])
        good.append(float(np.clip(good[near] + 0.2 * random.standard_normal(), 0, 1)))
        null.append(float(np.clip(null[near] + 0.2 * random.standard_normal(), 0, 1)))
        values.append((good[-1] - 0.5) ** 2 + 0.01 * random.standard_normal())
    found = importances(
        "y", [Column("good", np.array(good), False), Column("null", np.array(null), False)], np.array(values)
    )
    assert {each.parameter for each in found if each.told} == {"good"}


def test_few_trials_and_constants_say_nothing() -> None:
    random = np.random.default_rng(2)
    columns = columns_of(random, FEWEST_TRIALS - 1)
    assert importances("y", columns, random.random(FEWEST_TRIALS - 1)) == []
    constant = [Column("constant", np.ones(40), choice=False)]
    assert importances("y", constant, random.random(40)) == []
    equal = importances("y", columns_of(random, 40), np.ones(40))
    assert not any(each.told for each in equal)
    assert all(math.isfinite(each.share) for each in equal)


def test_many_trials_are_sampled_down_and_the_same_data_say_the_same() -> None:
    random = np.random.default_rng(3)
    columns = columns_of(random, 3 * MOST_TRIALS)[:2]
    values = columns[0].values + NOISE * random.standard_normal(3 * MOST_TRIALS)
    once, twice = importances("y", columns, values), importances("y", columns, values)
    assert once == twice
    assert [each.parameter for each in once if each.told] == ["range"]


def test_holm_corrects_for_the_number_of_looks() -> None:
    assert holm([0.01, 0.04, 0.03]) == [0.03, 0.06, 0.06]
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert 0 < LEVEL < 0.05


def test_good_values_are_those_of_the_best_trials() -> None:
    values = np.arange(40.0)
    numbers = list(range(40))
    rate = Searched("lr", {n: 10 ** (-4 + n / 20) for n in numbers}, low=1e-4, high=1e-2, log=True)
    assert good_values(rate, numbers, values) == "Good trials lie between 0.00011 and 0.00025."
    norm = Searched("norm", {n: float(n >= 10) for n in numbers}, choices=("batch", "group"))
    assert good_values(norm, numbers, values) == "Good trials have batch: 10 of the best 10, 25% of all."


def test_findings_tell_what_mattered_with_its_good_values() -> None:
    random = np.random.default_rng(4)
    trials = []
    for _ in range(60):
        params = drawn(random)
        bad = abs(math.log10(params[LR]) + 3) + 0.5 * (params[WIDTH] == 8)
        trials.append(Planted(params, flat_curve(random, offset=0.05 * bad)))
    facts = planted(trials)
    found = find(facts.sweep, facts.evaluations, facts.plan)
    told = {(each.objective, each.parameter): each.good for each in found.importances if each.told}
    assert set(told) == {(key, name) for key in facts.sweep.objectives for name in (LR, WIDTH)}
    assert told["val/pixel_mse", WIDTH].startswith("Good trials have 16") or "16" in told["val/pixel_mse", WIDTH]
    assert "0.00" in told["val/pixel_mse", LR]
    assert {each.parameter for each in found.importances} >= {KL, SIGMA}
    assert found.basis == "From 60 trials at step 480; diverged trials are left out."
