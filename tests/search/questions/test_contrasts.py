from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from planted_blocks import as_runs, question

from search.questions.blocks import BlockRun
from search.questions.contrasts import contrasts_of


def test_a_contrast_is_the_difference_of_logs_within_a_block() -> None:
    values = np.log([[1.0, 1.5], [20.0, 10.0]])
    found = contrasts_of(question(), as_runs("norm", values))
    assert found.blocks.tolist() == [0, 1]
    assert found.effects[:, 0] == pytest.approx(np.log([1.5, 0.5]))
    assert found.values == pytest.approx(values)


def test_differences_are_of_the_outcomes_themselves() -> None:
    runs = as_runs("norm", np.log([[1.0, 1.5], [3.0, 2.0]]))
    found = contrasts_of(question(scale="difference", outcome="slope of val/kl"), runs)
    assert found.effects[:, 0] == pytest.approx([0.5, -1.0])


def test_a_diverged_level_cannot_tell() -> None:
    found = contrasts_of(question(), as_runs("norm", np.array([[0.0, np.inf], [0.0, 0.3]])))
    assert np.isnan(found.effects[0, 0])
    assert found.effects[1, 0] == pytest.approx(0.3)
    assert found.diverged.tolist() == [[0, 1], [0, 0]]
    assert found.ended.tolist() == [[1, 1], [1, 1]]


def test_an_outcome_without_a_log_cannot_tell() -> None:
    runs = as_runs("norm", np.array([[0.0, 0.0]]))
    found = contrasts_of(question(), [runs[0], replace(runs[1], outcomes={"norm": -1.0})])
    assert np.isnan(found.effects[0, 0])
    assert found.diverged.sum() == 0


def fraction(without: int | None = None) -> list[BlockRun]:
    """A half fraction of four factors in 8 trials, log outcome 0.3 a - 0.2 b + 0.1 c."""
    runs = []
    for number, (a, b, c) in enumerate(product((0, 1), repeat=3)):
        levels = {"a": a, "b": b, "c": c, "d": (a + b + c) % 2}
        outcomes = {name: float(np.exp(1 + 0.3 * a - 0.2 * b + 0.1 * c)) for name in levels}
        runs.append(BlockRun(number, 0, levels, {}, {}, outcomes, number == without, {}))
    return runs


@pytest.mark.parametrize("without", [None, 2])
def test_questions_that_share_trials_do_not_disturb_each_other(without: int | None) -> None:
    for name, effect in {"a": 0.3, "b": -0.2, "c": 0.1, "d": 0.0}.items():
        found = contrasts_of(question(name), fraction(without))
        assert found.effects[0, 0] == pytest.approx(effect, abs=1e-12)
        assert found.values[0, 1] - found.values[0, 0] == pytest.approx(effect, abs=1e-12)


def test_what_a_damaged_fraction_cannot_tell_is_missing() -> None:
    """Two trials in which a and b always go together tell neither."""
    kept = [run for run in fraction() if run.levels["a"] == run.levels["b"] == run.levels["c"]]
    assert len(kept) == 2
    assert np.isnan(contrasts_of(question("a"), kept).effects).all()


def test_across_values_the_effect_is_the_difference_of_slopes() -> None:
    runs = [
        BlockRun(
            number=index,
            block=7,
            levels={"scheme": level},
            across={"scheme": beta},
            crossed={},
            outcomes={"scheme": 50 * beta ** (-0.5 + 0.2 * level)},
            diverged=False,
            nuisances={},
        )
        for index, (level, beta) in enumerate(product((0, 1), (0.5, 2, 8)))
    ]
    asked = question("scheme", outcome="val/kl", scale="difference", across=True)
    found = contrasts_of(asked, runs)
    assert found.values[0] == pytest.approx([-0.5, -0.3])
    assert found.effects[0, 0] == pytest.approx(0.2)
    assert np.isnan(contrasts_of(asked, [run for run in runs if run.across["scheme"] == 2]).effects).all()


def test_every_level_is_compared_with_the_reference() -> None:
    runs = [BlockRun(n, 0, {"norm": n}, {}, {}, {"norm": value}, False, {}) for n, value in enumerate((1.0, 2.0, 4.0))]
    found = contrasts_of(question(levels=("none", "batch norm", "instance norm")), runs)
    assert found.effects[0] == pytest.approx(np.log([2.0, 4.0]))


def test_a_question_without_runs_has_no_blocks() -> None:
    found = contrasts_of(question(), [])
    assert found.values.shape == (0, 2)
    assert found.effects.shape == (0, 1)


@pytest.mark.parametrize("diverged", [True, False])
def test_levels_are_compared_at_settings_where_all_have_an_outcome(diverged: bool) -> None:
    """Level 1 is no different, but misses the trial at the setting where outcomes double."""
    runs = []
    for number, (level, rate) in enumerate(product((0, 1), (1, 2))):
        missing = level == 1 and rate == 2
        outcome = float("nan") if missing else 0.04 * rate
        gone = missing and diverged
        runs.append(BlockRun(number, 0, {"norm": level}, {}, {"norm": str(rate)}, {"norm": outcome}, gone, {}))
    found = contrasts_of(question(), runs)
    assert found.effects[0, 0] == pytest.approx(0.0)
    if diverged:
        assert found.losses[0] == pytest.approx([np.log(0.04) + np.log(2) / 2, np.log(0.04) + np.log(2) / 2])


def test_slopes_are_over_values_that_all_levels_have() -> None:
    """The slope is steeper between the values of which level 1 has only those two."""
    asked = question("scheme", scale="difference", outcome="val/kl", across=True)
    outcomes = {0.5: 50.0, 2.0: 40.0, 8.0: 4.0}
    runs = [
        BlockRun(number, 0, {"scheme": level}, {"scheme": beta}, {}, {"scheme": outcomes[beta]}, gone, {})
        for number, (level, beta) in enumerate(product((0, 1), outcomes))
        for gone in [level == 1 and beta == 0.5]
    ]
    assert contrasts_of(asked, runs).effects[0, 0] == pytest.approx(0.0)
