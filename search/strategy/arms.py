"""Where a suggestion comes from, once the model knows enough: the model, what was known before the first trial, or the
surroundings of the present best third; whichever does better is asked more often.

Shares of priors, incumbents and models as in PriorBand (Mallik et al. 2023, sec. 4) and PriMO (Basu et al. 2025), but
weighted by how their trials fared: Thompson sampling on whether a trial is among the best third.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from search.config.distributions import at_quantile, near
from search.config.space import Prior, Space
from search.config.sweep import Sweep

PRIOR, BEST = "prior", "around the best"


def beliefs(sweep: Sweep) -> dict[str, dict[str, Prior]]:
    """Centers of the space that are believed to be good, by arm: the parameters' own priors, and each named point."""
    points = {
        f"near point {name}": {key: Prior(value=value, sure="medium") for key, value in point.items()}
        for name, point in sweep.config.points.items()
    }
    priors = sweep.space.priors()
    return ({PRIOR: priors} if priors else {}) | points


def draw_near(space: Space, center: Mapping[str, Prior], random: Random) -> dict[str, Any]:
    """Values by name, drawn from what is believed; those that nothing is believed of, evenly."""

    def choose(name: str, distribution: Any) -> Any:
        if name in center:
            return near(distribution, center[name].value, center[name].sure, random.random())
        return at_quantile(distribution, random.random())

    parameters = space.parameters()
    return {name: value for name, value in space.assign(choose).items() if name in parameters}


def around(space: Space, params: Mapping[str, Any], random: Random) -> dict[str, Any]:
    """Values close to those of a trial."""
    return draw_near(space, {name: Prior(value=value, sure="high") for name, value in params.items()}, random)


def choose_arm(results: Mapping[str, tuple[int, int]], random: Random) -> str:
    """The arm whose next trial is most likely to be good, by a draw from what is known of each (Thompson 1933).

    `results`: (good trials, others) by arm.
    """
    chance = {arm: random.betavariate(1 + good, 1 + others) for arm, (good, others) in results.items()}
    return max(chance, key=lambda arm: chance[arm])
