"""What the sampler's trials say about a question is an association, with counts and without an interval."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from planted_blocks import question
from sweeps import make_sweep

from search.report.association import associations

NORM = {"model.encoder.norm": ["batch", "instance"]}
PRIOR = {"loss.generator.prior": [0, 0.01], "model.decoder.upsampling": ["transposed", "transposed"]}


def sweep_of(*trials: tuple[dict[str, str], float]) -> Any:
    return SimpleNamespace(completed=[SimpleNamespace(params=params, value=value) for params, value in trials])


def said(factor: Any, sweep: Any, plan: Any = None, **changes: Any) -> tuple[str, ...]:
    return associations(question(**changes), factor, sweep, plan, lambda trial: trial.value)  # type: ignore[attr-defined]


def norms(*values: float, norm: str) -> list[tuple[dict[str, str], float]]:
    return [({"model.encoder.norm": norm}, value) for value in values]


def test_it_is_the_ratio_of_geometric_means() -> None:
    sweep = sweep_of(*norms(1, 4, 2, 2, 2, norm="batch"), *norms(3, 3, 3, 3, 3, math.nan, norm="instance"))
    [told] = said(NORM, sweep)
    assert told == (
        "Among the sampler's trials instance norm goes with +50 % of val/pixel_mse (5 against 5 completed trials): "
        "association only, since the sampler chose what else they have."
    )


def test_a_difference_of_slopes_is_one_of_means() -> None:
    sweep = sweep_of(*norms(-1, 1, 0, 0, 0, norm="batch"), *norms(*[-0.3] * 5, norm="instance"))
    [told] = said(NORM, sweep, scale="difference", outcome="the slope of val/kl")
    assert "goes with -0.3 of the slope of val/kl" in told


@pytest.mark.parametrize("changes", [{}, {"across": True}])
def test_few_trials_and_slopes_across_values_say_nothing(changes: dict[str, Any]) -> None:
    few = norms(1, 1, 1, 1, norm="batch") if not changes else norms(*[1.0] * 9, norm="batch")
    sweep = sweep_of(*few, *norms(*[2.0] * 9, norm="instance"), *norms(*[9.0] * 9, norm="group"))
    assert said(NORM, sweep, **changes) == ("",)


def test_what_the_space_leaves_alone_is_that_of_the_base() -> None:
    prior = [({"loss.generator.prior": text}, value) for text, value in [("0.0", 1.0)] * 5 + [("0.01", 2.0)] * 5]
    plan = make_sweep()
    assert said(PRIOR, sweep_of(*prior), plan) == ("",), "the base does not say, and defaults may change"
    given = {"loss.generator.prior": [0, 0.01], "train.steps": [plan.steps] * 2}
    [told] = said(given, sweep_of(*prior), plan)
    assert "goes with +100 % of val/pixel_mse" in told
