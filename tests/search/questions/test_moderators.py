from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from search.questions.moderators import Value, are_numbers, strongest

BLOCKS = 24


def planted(seed: int = 0) -> tuple[dict[str, list[Value]], np.ndarray]:
    """Nuisances of 24 blocks, of which no effect depends on any."""
    random = np.random.default_rng(seed)
    nuisances: dict[str, list[Value]] = {
        "lr": random.uniform(size=BLOCKS).tolist(),
        "norm": random.choice(["batch", "none"], BLOCKS).tolist(),
        "same": [1.0] * BLOCKS,
    }
    return nuisances, random.normal(size=BLOCKS)


def test_the_nuisance_that_an_effect_follows_is_found() -> None:
    nuisances, noise = planted()
    follows = np.array(nuisances["lr"], float) + 0.1 * noise
    found = strongest(nuisances, follows)
    assert found is not None
    assert found.name == "lr"
    assert found.p == pytest.approx(2 * stats.spearmanr(nuisances["lr"], follows).pvalue)
    by_choice = strongest(nuisances, np.array([value == "none" for value in nuisances["norm"]]) + 0.1 * noise)
    assert by_choice is not None
    assert by_choice.name == "norm"
    assert by_choice.p < 0.01


def test_without_any_association_one_is_told_rarely() -> None:
    told = [strongest(*planted(seed)) for seed in range(200)]
    assert sum(found is not None and found.p <= 0.05 for found in told) <= 20


def test_blocks_that_cannot_tell_are_left_out() -> None:
    nuisances, noise = planted()
    effects = np.array(nuisances["lr"], float) + 0.1 * noise
    effects[:4] = np.nan
    found = strongest(nuisances, effects)
    assert found is not None
    assert found.p == pytest.approx(2 * stats.spearmanr(nuisances["lr"][4:], effects[4:]).pvalue)


def test_few_blocks_or_nuisances_that_do_not_vary_tell_nothing() -> None:
    assert strongest({"lr": [1.0, 2.0, 3.0, 4.0]}, np.arange(4.0)) is None
    assert strongest({"same": [1.0] * BLOCKS}, np.arange(float(BLOCKS))) is None
    assert strongest({}, np.arange(float(BLOCKS))) is None


def test_numbers_are_not_choices() -> None:
    assert are_numbers([1.0, None, 2])
    assert not are_numbers([True, False])
    assert not are_numbers(["batch", 1.0])
    assert not are_numbers([None])
