"""The tables of replay.py: what its runs come to, with intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from methods import CEILING, OURS, STOCK
from page import COLORS, Section
from surrogate import TRUTHS, Table, cross_validate
from yardstick import POOL, Yardstick

POINTS = 120
"""Points of the quality curves, evenly over the steps."""


@dataclass
class Run:
    """One replay: what a person would have had at each of POINTS shares of the budget."""

    g: np.ndarray
    """sqrt(s1 s2) of the recommended trial; infinite before any has completed."""
    volume: np.ndarray
    trials: int
    completed: int

    def share_to(self, target: float) -> float:
        """Share of the budget until the recommended trial is as good as `target`, for good; infinite if never."""
        good = np.logical_and.accumulate((self.g <= target)[::-1])[::-1]
        return float((good.argmax() + 1) / len(good)) if good.any() else math.inf


def interval(values: Sequence[float], statistic: Callable[..., Any] = np.mean) -> tuple[float, float, float]:
    """A statistic of values of independent seeds, with the 95 % interval of 2,000 bootstrap samples."""
    data = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(0).integers(len(data), size=(2000, len(data)))
    with np.errstate(invalid="ignore"):
        samples = np.sort(statistic(data[drawn], axis=1))
    return float(statistic(data)), float(samples[49]), float(samples[1949])


def share_interval(runs: Sequence[Run], random_g: np.ndarray) -> tuple[float, float, float]:
    """Median share of the budget until a method is as good as random search at its end, and its 95 % interval; both the
    runs and the target's draws are resampled."""
    rng = np.random.default_rng(0)

    def median(chosen: Sequence[Run], target: float) -> float:
        return float(np.median([each.share_to(target) for each in chosen]))

    samples = sorted(
        median(
            [runs[index] for index in rng.integers(len(runs), size=len(runs))],
            float(np.median(rng.choice(random_g, len(random_g)))),
        )
        for _ in range(500)
    )
    return median(runs, float(np.median(random_g))), samples[12], samples[487]


def way_interval(mine: Sequence[float], ceiling: Sequence[float], random_g: np.ndarray) -> tuple[float, float, float]:
    """Share of the way from random search's g to the ceiling's, by their means, and its 95 % interval; the seeds, which
    are the same for both methods, and the target's draws are resampled."""
    rng, ends, tops = np.random.default_rng(0), np.asarray(mine), np.asarray(ceiling)
    seeds = rng.integers(len(ends), size=(500, len(ends)))
    starts = random_g[rng.integers(len(random_g), size=(500, len(random_g)))].mean(1)
    with np.errstate(invalid="ignore"):
        samples = np.sort((starts - ends[seeds].mean(1)) / (starts - tops[seeds].mean(1)))
        share = (random_g.mean() - ends.mean()) / (random_g.mean() - tops.mean())
    return float(share), float(samples[12]), float(samples[487])


def _shown(found: tuple[float, float, float], form: str) -> str:
    value, low, high = (format(each, form) if math.isfinite(each) else "never" for each in found)
    return f"{value} ({low} to {high})"


def quality(runs: dict[str, list[Run]], yardstick: Yardstick, title: str, trainings: int) -> Section:
    """Every method beside random search."""
    target = yardstick.random_quality(trainings)
    ceiling = [each.g[-1] for each in runs.get(CEILING, [])]
    rows = []
    for name, mine in runs.items():
        ends = [each.g[-1] for each in mine]
        way = _shown(way_interval(ends, ceiling, target[:, 0]), ".0%") if ceiling else ""
        rows.append(
            [
                name,
                f"{np.mean([each.trials for each in mine]):.0f}, {np.mean([each.completed for each in mine]):.0f}",
                _shown(share_interval(mine, target[:, 0]), ".2f"),
                _shown(interval([each.g[POINTS // 3 - 1] for each in mine], np.median), ".3f"),
                _shown(interval(ends), ".3f"),
                way,
                _shown(interval([each.volume[-1] for each in mine]), ".3f"),
            ]
        )
    return Section(
        f"Quality per training step, replayed, {title}: {len(next(iter(runs.values())))} seeds",
        [
            "",
            "trials, completed",
            "share of the steps to random search's quality",
            "g at a third (median)",
            "g at the end",
            "of the way to perfect stopping",
            "log hypervolume at the end",
        ],
        rows,
        [
            f"g: sqrt(s1 s2) of the recommended trial without noise; less is better. Random search with {trainings} "
            f"full trainings: {np.median(target[:, 0]):.3f} (median of {len(target):,} draws; mean "
            f"{target[:, 0].mean():.3f}, log hypervolume {target[:, 1].mean():.3f}); the best of {POOL:,} "
            f"configurations: {yardstick.best_g:.3f}. In brackets 95 % intervals over seeds (bootstrap).",
            *comparisons(runs),
        ],
        [_figure(runs)],
    )


def comparisons(runs: dict[str, list[Run]]) -> list[str]:
    """Ours less each of Ray's pairs, seed by seed."""
    lines = []
    for label in (each for each in STOCK if each in runs and OURS in runs):
        pairs = list(zip(runs[OURS], runs[label], strict=True))
        g = interval([ours.g[-1] - stock.g[-1] for ours, stock in pairs])
        volume = interval([ours.volume[-1] - stock.volume[-1] for ours, stock in pairs])
        lines.append(f"At the end, ours less {label}: g {_shown(g, '+.3f')}, log hypervolume {_shown(volume, '+.3f')}.")
    return lines


def _figure(runs: dict[str, list[Run]]) -> go.Figure:
    shares = np.arange(1, POINTS + 1) / POINTS
    figure = go.Figure(layout={"template": "plotly_white", "title": "Log hypervolume: mean", "height": 420})
    lines = [{"color": color, "dash": dash} for dash in ("solid", "dot") for color in COLORS]
    for line, (label, mine) in zip(lines, runs.items(), strict=False):
        figure.add_scatter(x=shares, y=np.mean([each.volume for each in mine], 0), name=label, line=line)
    figure.update_xaxes(title="share of the training steps")
    return figure


def surrogate_error(table: Table) -> Section:
    return Section(
        "The replay's truths, on the better half of configurations that they were not fitted to",
        ["at full fidelity", "R2 (log)", "rank correlation", "error", "of which noise between seeds"],
        [
            [
                f"{truth}, {name}",
                f"{fit.r2:.2f}",
                f"{fit.rank:.2f}",
                f"{math.expm1(fit.error):.0%}",
                f"{math.expm1(fit.noise):.0%}",
            ]
            for truth in TRUTHS
            for name, fit in cross_validate(table, truth).items()
        ],
        [
            f"{len(table.x)} trainings of {len(np.unique(table.configurations))} configurations, "
            f"{(~table.completed).sum()} diverged.",
            "Rank correlation of the recorded objectives with themselves at full fidelity: "
            + "; ".join(
                f"at step {steps} {' and '.join(f'{each:.2f}' for each in table.foresight(steps))}"
                for steps in table.sweep.rungs
            )
            + ".",
        ],
    )
