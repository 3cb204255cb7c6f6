"""Designs that no result changes: scrambled Sobol points and the full grid. Optuna has both, but its Sobol points leave
branches to chance, and its grid does not know them. Ours are indexed, so that a resumed sweep repeats no point."""

from __future__ import annotations

from typing import Any

from scipy.stats import qmc

from search.config.distributions import at_quantile, count_values, value_at
from search.config.space import Branch, Fixed, Node, Parameter, Space


def quasi_random(space: Space, index: int, seed: int) -> dict[str, Any]:
    """Point number `index` of a scrambled Sobol sequence (Owen 1998) over the parameters of all branches."""
    parameters = space.parameters()
    sequence = qmc.Sobol(len(parameters), scramble=True, seed=seed)
    if index:
        sequence.fast_forward(index)
    unit = sequence.random(1)[0].tolist()
    return {name: at_quantile(parameters[name], u) for name, u in zip(parameters, unit, strict=True)}


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
            case Parameter(name, distribution, _):
                index, at = divmod(index, int(count_values(distribution)))
                point[name] = value_at(distribution, at)
            case Branch(name, options, _):
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
