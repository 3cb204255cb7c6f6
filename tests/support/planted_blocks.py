"""Blocks with what is true of them planted: log outcomes of two levels as arrays, and as trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from search.questions.blocks import Asked, BlockRun
from search.questions.intervals import expected_best
from vaegan_core.evaluation import PIXEL_MSE

NOISE = 0.12
"""Standard deviation of a seed's noise in log pixel MSE; gamma with two degrees of freedom, so skewed."""


def _bowl(nuisances: np.ndarray, best: float, steep: float) -> np.ndarray:
    return np.asarray(steep * ((nuisances[..., :3] - best) ** 2).sum(-1))


def _same(nuisances: np.ndarray) -> np.ndarray:
    return _bowl(nuisances, 0.5, 3.0)


def _moved(nuisances: np.ndarray) -> np.ndarray:
    return _bowl(nuisances, 0.7, 3.0) + 0.5 * (nuisances[..., 0] - 0.5)


def _forgiving(nuisances: np.ndarray) -> np.ndarray:
    return _bowl(nuisances, 0.5, 1.0)


def _skewed(nuisances: np.ndarray) -> np.ndarray:
    gamma = -np.log(nuisances[..., 3:]).sum(-1)
    return np.asarray(_same(nuisances) + 0.3 * (gamma - 2) / np.sqrt(2))


def _heavy(nuisances: np.ndarray) -> np.ndarray:
    size, side = -np.log(nuisances[..., 3]), np.sign(nuisances[..., 4] - 0.5)
    return np.asarray(_same(nuisances) + 0.3 * side * size**1.5 / np.sqrt(6))


WORLDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the same effect everywhere": _same,
    "an optimum that moves": _moved,
    "worse at best, better on average": _forgiving,
    "skewed effects": _skewed,
    "effects with heavy tails": _heavy,
}
"""Log outcome of the level at nuisances [..., 5] in (0, 1]; that of the reference is `_same`."""


def planted_blocks(world: str, shape: Sequence[int], random: np.random.Generator, effect: float = 0.0) -> np.ndarray:
    """Log outcomes [..., B, 2] of both levels in blocks of five nuisances, each with skewed noise of its seed."""
    nuisances = 1 - random.random((*shape, 5))
    levels = np.stack([_same(nuisances), WORLDS[world](nuisances) + effect], axis=-1)
    return np.asarray(levels + NOISE * (random.gamma(2.0, size=levels.shape) - 2) / np.sqrt(2))


@lru_cache(maxsize=64)
def truths(world: str, draws: int, effect: float = 0.0) -> tuple[float, float, float]:
    """(mean, pseudomedian) of the contrasts and the tuned effect, to three digits, from a million blocks."""
    blocks = planted_blocks(world, (1_000_000 // draws, draws), np.random.default_rng(99), effect)
    contrasts = (blocks[..., 1] - blocks[..., 0]).ravel()
    pairs = contrasts[: len(contrasts) // 2 * 2].reshape(-1, 2).mean(-1)
    tuned = expected_best(blocks[..., 1], draws).mean() - expected_best(blocks[..., 0], draws).mean()
    return float(contrasts.mean()), float(np.median(pairs)), float(tuned)


def as_runs(name: str, blocks: np.ndarray) -> list[BlockRun]:
    """Trials of a question of two levels, from log outcomes [B, 2]; those that are not finite diverged."""
    return [
        BlockRun(
            number=2 * block + level,
            block=block,
            levels={name: level},
            across={},
            crossed={},
            outcomes={name: float(np.exp(value)) if np.isfinite(value) else float("nan")},
            diverged=not np.isfinite(value),
            nuisances={},
        )
        for block, values in enumerate(blocks)
        for level, value in enumerate(values)
    ]


def question(name: str = "norm", **changes: object) -> Asked:
    """A question about the pixel MSE with two levels, with changes."""
    kept: dict[str, object] = {
        "name": name,
        "outcome": PIXEL_MSE,
        "levels": ("batch norm", "instance norm"),
        "smallest_effect": 1.25,
        "scale": "ratio",
        "across": False,
    }
    return Asked(**(kept | changes))  # type: ignore[arg-type]
