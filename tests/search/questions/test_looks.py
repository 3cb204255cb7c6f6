from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from search.questions.looks import PLANNED, level_at, levels, looks_until, planned_looks, sequential_p


def test_looks_are_planned_every_eight_blocks_and_at_the_end() -> None:
    assert planned_looks(8, 24) == (8, 16, 24)
    assert planned_looks(16, 20) == (16, 20)
    assert planned_looks(8, 8) == (8,)
    with pytest.raises(ValueError, match="least=9, most=8"):
        planned_looks(9, 8)


def test_looks_go_on_where_a_sweep_was_extended() -> None:
    assert looks_until((8, 16, 20), 19) == (8, 16)
    assert looks_until((8, 16, 20), 37) == (8, 16, 20, 28, 36)
    assert looks_until((8,), 7) == ()


def test_one_look_spends_what_is_planned() -> None:
    assert level_at((8,), 8) == pytest.approx(PLANNED * 0.05)
    assert level_at((8,), 8, 0.01) == pytest.approx(PLANNED * 0.01)


@pytest.mark.parametrize(("looks", "most"), [((8, 16, 24), 24), ((8, 16, 24, 32, 40), 24), ((8, 13), 24)])
def test_all_looks_together_claim_as_often_as_said(looks: tuple[int, ...], most: int) -> None:
    runs = 100_000
    sums = np.random.default_rng(0).normal(size=(runs, looks[-1])).cumsum(axis=1)[:, [look - 1 for look in looks]]
    bounds = stats.norm.isf(np.array(levels(looks, most, 0.05)) / 2) * np.sqrt(looks)
    ever = (np.abs(sums) > bounds).any(axis=1).mean()
    last = looks[-1]
    spent = PLANNED * (last / most) ** 1.5 if last <= most else PLANNED + (1 - PLANNED) * (last - most) / last
    assert ever == pytest.approx(0.05 * spent, abs=4 * np.sqrt(0.05 / runs))


def test_the_sequential_p_is_the_level_at_which_the_last_look_claims() -> None:
    for level in (0.001, 0.05, 0.3):
        at_last = level_at((8, 16, 24), 24, level)
        assert float(sequential_p(np.array(at_last), (8, 16, 24), 24)) == pytest.approx(level, rel=1e-3)
    assert sequential_p(np.array([0.0, 1.0]), (8,), 8).tolist() == pytest.approx([1e-7, 1.0])
