"""Whether the answers to questions are as sure as they say, on planted blocks: the tables of this folder's README.

python tests/benchmarks/questions_coverage.py               # 2,000 runs of each, about two minutes on one core
python tests/benchmarks/questions_coverage.py --runs 200
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "support"))
from planted_blocks import WORLDS, planted_blocks, truths

from search.questions.answers import holm
from search.questions.intervals import (
    Interval,
    expected_best,
    mean_interval,
    mean_p,
    tuned_interval,
    typical_interval,
)
from search.questions.looks import LEVEL, level_at, planned_looks, sequential_p
from search.questions.power import blocks_needed, chance_of_none

DRAWS = 3
SMALLEST = np.log(1.25)
QUESTIONS = 6


def covers(interval: Interval, truth: float | np.ndarray) -> np.ndarray:
    return np.asarray((interval.low <= truth) & (truth <= interval.high))


def fixed(world: str, blocks: int, runs: int, random: np.random.Generator) -> dict[str, float]:
    """Share of intervals that cover, at a number of blocks fixed before."""
    values = planted_blocks(world, (runs, blocks), random, effect=0.2)
    contrasts = values[..., 1] - values[..., 0]
    mean, typical, tuned = truths(world, DRAWS, effect=0.2)
    chosen = random.integers(blocks, size=(runs, 300, blocks))
    first, second = (np.take_along_axis(values[:, None, :, level], chosen, -1) for level in (0, 1))
    resampled = expected_best(second, DRAWS) - expected_best(first, DRAWS)
    percentiles = Interval(resampled.mean(-1), *np.quantile(resampled, [LEVEL / 2, 1 - LEVEL / 2], axis=-1))
    return {
        "average": covers(mean_interval(contrasts, LEVEL), mean).mean(),
        "typical": covers(typical_interval(contrasts, LEVEL), typical).mean(),
        "tuned": covers(tuned_interval(values[..., 0], values[..., 1], DRAWS, LEVEL), tuned).mean(),
        "tuned, bootstrap": covers(percentiles, tuned).mean(),
    }


@dataclass
class Followed:
    """Questions [R, Q] that were looked at until their answer was clear or no blocks were left."""

    blocks: np.ndarray
    """At which each stopped."""
    differs: np.ndarray
    equal: np.ndarray
    ever: np.ndarray
    """Whether a difference was claimed at any look."""
    average: Interval
    tuned: Interval
    always: np.ndarray
    """Whether the average's intervals of all looks cover."""


def updated(old: Interval, new: Interval, where: np.ndarray) -> Interval:
    return Interval(*(np.where(where, after, before) for before, after in zip(old, new, strict=True)))


def follow(values: np.ndarray, most: int, means: np.ndarray) -> Followed:
    """Looks at log outcomes [R, Q, B, 2] after every 8 blocks, as the product does; `means` [Q] are true."""
    looks = planned_looks(8, most)
    shape = values.shape[:2]
    p, open_ = np.ones(shape), np.ones(shape, bool)
    nothing = Interval(*np.full((3, *shape), np.nan))
    none = np.zeros(shape, bool)
    found = Followed(np.zeros(shape, int), none, none, none, nothing, nothing, ~none)
    for index, look in enumerate(looks):
        seen = values[:, :, :look]
        contrasts = seen[..., 1] - seen[..., 0]
        level = level_at(looks[: index + 1], most)
        average = mean_interval(contrasts, level)
        tuned = tuned_interval(seen[..., 0], seen[..., 1], DRAWS, level)
        p = np.where(open_, sequential_p(mean_p(contrasts), looks[: index + 1], most), p)
        found.average = updated(found.average, average, open_)
        found.tuned = updated(found.tuned, tuned, open_)
        found.always = found.always & covers(average, means)
        found.blocks[open_] = look
        found.equal = (found.average.low > -SMALLEST) & (found.average.high < SMALLEST)
        found.differs = ~found.equal & (holm(p) <= LEVEL) & ~covers(found.average, 0.0)
        found.ever = found.ever | found.differs
        open_ &= ~(found.equal | found.differs)
    return found


def looked_at(world: str, most: int, runs: int, random: np.random.Generator) -> dict[str, float]:
    """Six questions of one world, one with an effect of a quarter."""
    effects = np.array([np.log(1.25), *np.zeros(QUESTIONS - 1)])
    values = np.stack([planted_blocks(world, (runs, most), random, effect) for effect in effects], axis=1)
    true = np.array([truths(world, DRAWS, effect) for effect in effects])
    found = follow(values, most, true[:, 0])
    return {
        "average at all looks": found.always.mean(),
        "average where it stopped": covers(found.average, true[:, 0]).mean(),
        "tuned where it stopped": covers(found.tuned, true[:, 2]).mean(),
        "blocks": found.blocks.mean(),
    }


def no_effect(world: str, most: int, runs: int, random: np.random.Generator) -> dict[str, float]:
    """Six questions without any effect on average."""
    effect = -truths(world, DRAWS)[0]
    values = planted_blocks(world, (runs, QUESTIONS, most), random, effect)
    found = follow(values, most, np.zeros(QUESTIONS))
    return {"any difference claimed": found.ever.any(axis=1).mean(), "no practical effect": found.equal.mean()}


def powered(world: str, ratio: float, runs: int, random: np.random.Generator) -> dict[str, float]:
    """A planted ratio and five planted nulls, with the blocks that power says."""
    shift = -truths(world, DRAWS)[0]
    many = planted_blocks(world, (100_000,), random)
    spread = float((many[:, 1] - many[:, 0]).std())
    most = blocks_needed(spread, ratio, QUESTIONS)
    effects = np.array([np.log(ratio), *np.zeros(QUESTIONS - 1)])
    values = np.stack([planted_blocks(world, (runs, most), random, shift + effect) for effect in effects], axis=1)
    found = follow(values, most, effects)
    null = found.equal[:, 1:]
    return {
        "spread": spread,
        "blocks": most,
        "claimed": found.differs[:, 0].mean(),
        "ratio (median)": float(np.median(np.exp(found.average.estimate[:, 0]))),
        "called nothing": found.equal[:, 0].mean(),
        "null: no practical effect": null.mean(),
        "predicted": chance_of_none(spread, float(np.exp(SMALLEST)), most),
        "blocks used": found.blocks.mean(),
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    columns = list(next(iter(rows.values())))
    lines = [["", *columns]] + [[name, *(f"{row[column]:.3g}" for column in columns)] for name, row in rows.items()]
    text = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([text[0], f"|{'---|' * (len(columns) + 1)}", *text[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    random = np.random.default_rng(0)
    print("Coverage at a fixed number of blocks")
    print(table({f"{world}, {n} blocks": fixed(world, n, runs, random) for world in WORLDS for n in (8, 16, 32)}))
    print("\nLooking after every 8 blocks, at most 24 or 32")
    print(table({f"{world}, {n} blocks": looked_at(world, n, runs, random) for world in WORLDS for n in (24, 32)}))
    print("\nSix questions without effect")
    print(table({f"{world}, {n} blocks": no_effect(world, n, runs, random) for world in WORLDS for n in (8, 24, 32)}))
    print("\nPower")
    ratios = (1.25, 1.5, 2)
    print(table({f"{world}, ratio {r}": powered(world, r, runs, random) for world in WORLDS for r in ratios}))


if __name__ == "__main__":
    main()
