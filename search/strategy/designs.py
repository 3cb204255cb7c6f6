"""Designs that no result changes: scrambled Sobol points and the full grid. Optuna has both, but its Sobol points leave
branches to chance, and its grid does not know them. Ours are indexed, so that a resumed sweep repeats no point."""

from __future__ import annotations

import math
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from scipy.stats import qmc

from search.config.space import Branch, Fixed, Node, Parameter, Space, values_of


def quasi_random(space: Space, index: int, seed: int) -> dict[str, Any]:
    """Point number `index` of a scrambled Sobol sequence (Owen 1998) over the parameters of all branches."""
    parameters = space.parameters()
    sequence = qmc.Sobol(len(parameters), scramble=True, seed=seed)
    if index:
        sequence.fast_forward(index)
    unit = sequence.random(1)[0].tolist()
    return {name: at_quantile(parameters[name], u) for name, u in zip(parameters, unit, strict=True)}


def at_quantile(distribution: BaseDistribution, u: float) -> Any:
    """The value at u in [0, 1) of a distribution's range, spread as a random sampler would spread it."""
    if isinstance(distribution, IntDistribution | FloatDistribution) and distribution.log:
        whole = isinstance(distribution, IntDistribution)
        margin = 0.5 if whole else 0.0  # a whole number stands for everything rounded to it
        low, high = math.log(distribution.low - margin), math.log(distribution.high + margin)
        value = math.exp(low + u * (high - low))
        return min(max(round(value) if whole else value, distribution.low), distribution.high)
    values = values_of(distribution)
    if values is not None:
        return values[int(u * len(values))]
    assert isinstance(distribution, FloatDistribution)
    return distribution.low + u * (distribution.high - distribution.low)


def grid_point(space: Space, index: int) -> dict[str, Any]:
    """Point number `index` of the grid over every parameter, the last parameter fastest; a branch has its own.

    `index` is below `space.size()`, which must be finite.
    """
    point, rest = _grid(space.nodes, index)
    assert rest == 0, index
    return point


def _grid(nodes: tuple[Node, ...], index: int) -> tuple[dict[str, Any], int]:
    """The point at `index` modulo the number of points, and the quotient."""
    point: dict[str, Any] = {}
    for node in reversed(nodes):
        match node:
            case Parameter(name, distribution):
                values = values_of(distribution)
                assert values is not None, name
                index, at = divmod(index, len(values))
                point[name] = values[at]
            case Branch(name, options):
                sizes = {option: int(Space(inner).size()) for option, inner in options.items()}
                index, at = divmod(index, sum(sizes.values()))
                for option, size in sizes.items():
                    if at < size:
                        point |= {name: option} | _grid(options[option], at)[0]
                        break
                    at -= size
            case Fixed():
                pass
    return point, index
