"""What each block says of a question: values of its levels, and the contrasts between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from search.questions.blocks import Asked, BlockRun


@dataclass(frozen=True)
class Contrasts:
    """A question's blocks, in order of their numbers."""

    blocks: np.ndarray
    """Numbers of the blocks [B]."""
    values: np.ndarray
    """Outcome by level [B, L], on the scale of the contrasts: its log, as it is for differences, or its slope on the
    log of what the levels run across. NaN where no trial of the block can tell."""
    effects: np.ndarray
    """Each level against the reference [B, L - 1]; NaN where the block cannot tell."""
    losses: np.ndarray
    """Values as losses, of which less is better [B, L], a diverged trial being as bad as the worst of all blocks. NaN
    where neither less nor more is better."""
    ended: np.ndarray
    """Trials by level [B, L]."""
    diverged: np.ndarray
    """How many of them diverged [B, L]."""


def contrasts_of(asked: Asked, runs: Sequence[BlockRun]) -> Contrasts:
    """Contrasts within each block, by least squares on the block's trials.

    Other questions whose levels vary among the same trials are accounted for by effects of their own, so that a
    fraction of a factorial from which a diverged trial is missing misleads no more than it must. Where levels run at
    several other settings, those are compared at which all levels have an outcome.
    """
    mine = [run for run in runs if asked.name in run.levels]
    blocks = sorted({run.block for run in mine})
    by_block = {block: [run for run in mine if run.block == block] for block in blocks}
    size = len(asked.levels)
    counts = np.zeros((2, len(blocks), size))
    for row, block in enumerate(blocks):
        for run in by_block[block]:
            counts[:, row, run.levels[asked.name]] += 1, run.diverged
    outcomes = {run.number: _value(asked, run) for run in mine}
    finite = [asked.worse * value for value in outcomes.values() if np.isfinite(value)]
    worst = asked.worse * max(finite, default=np.nan)
    values, losses = np.empty((2, len(blocks), size))
    effects = np.empty((len(blocks), size - 1))
    for row, block in enumerate(blocks):
        told = _told((run, outcomes[run.number]) for run in by_block[block])
        values[row], effects[row] = _values(asked, told), _effects(asked, _where_all_levels_are(asked, told))
        badly = _told((run, worst if run.diverged else outcomes[run.number]) for run in by_block[block])
        losses[row] = asked.worse * _values(asked, badly) if asked.worse else np.nan
    return Contrasts(np.array(blocks, int), values, effects, losses, *counts)


Told = Sequence[tuple[BlockRun, float]]
"""Trials of one block with their outcomes, which are finite."""


def _told(outcomes: Iterable[tuple[BlockRun, float]]) -> Told:
    return [(run, value) for run, value in outcomes if np.isfinite(value)]


def _where_all_levels_are(asked: Asked, told: Told) -> Told:
    """The trials at those other settings at which every level has an outcome; all, if there is one such setting."""
    levels: dict[tuple[float | None, str | None], set[int]] = {}
    for run, _ in told:
        levels.setdefault(_settings(asked, run), set()).add(run.levels[asked.name])
    if len(levels) == 1:
        return told
    return [each for each in told if len(levels[_settings(asked, each[0])]) == len(asked.levels)]


def _settings(asked: Asked, run: BlockRun) -> tuple[float | None, str | None]:
    return run.across.get(asked.name), run.crossed.get(asked.name)


def _values(asked: Asked, told: Told) -> np.ndarray:
    """Values of the levels [L]; NaN where the trials do not tell them."""
    rows, design = _model(asked, told)
    return _estimated(rows, design, told)


def _effects(asked: Asked, told: Told) -> np.ndarray:
    """Levels against the reference [L - 1]; NaN where the trials do not tell them."""
    rows, design = _model(asked, told)
    return _estimated(rows[1:] - rows[0], design, told)


def _model(asked: Asked, told: Told) -> tuple[np.ndarray, np.ndarray]:
    """What the levels' values are made of [L, k], and the trials' outcomes [n, k]: combinations of k coefficients."""
    size, runs = len(asked.levels), [run for run, _ in told]
    own = np.eye(size)[[run.levels[asked.name] for run in runs]]
    others, middle = _others(asked, runs)
    if not asked.across:
        return np.hstack([np.eye(size), np.tile(middle, (size, 1))]), np.hstack([own, others])
    log_across = np.log([run.across[asked.name] for run in runs]).reshape(-1, 1)
    rows = np.hstack([np.eye(size), np.zeros((size, size + others.shape[1]))])
    return rows, np.hstack([own * log_across, own, others])


def _value(asked: Asked, run: BlockRun) -> float:
    """A trial's outcome on the scale that is linear in the effects; NaN where there is none."""
    value = np.nan if run.diverged else run.outcomes.get(asked.name, np.nan)
    if asked.scale == "difference" and not asked.across:
        return float(value)
    return float(np.log(value)) if value > 0 else float("nan")


def _others(asked: Asked, runs: Sequence[BlockRun]) -> tuple[np.ndarray, np.ndarray]:
    """Columns for the levels of questions that vary among the trials [n, k], and the middle of their levels [k]."""
    columns, middle = [], []
    for name in dict.fromkeys(name for run in runs for name in run.levels if name != asked.name):
        levels = [run.levels.get(name, 0) for run in runs]
        present = sorted(set(levels))
        for level in present[1:]:
            columns.append([float(each == level) for each in levels])
            middle.append(1 / len(present))
    return np.array(columns).reshape(len(columns), len(runs)).T, np.array(middle)


def _estimated(rows: np.ndarray, design: np.ndarray, told: Told) -> np.ndarray:
    """Combinations [r] of the coefficients, by least squares; NaN where the trials do not tell one."""
    if not told:
        return np.full(len(rows), np.nan)
    inverse = np.linalg.pinv(design)
    possible = np.isclose(rows @ inverse @ design, rows, atol=1e-8).all(axis=1)
    return np.where(possible, rows @ inverse @ np.array([value for _, value in told]), np.nan)
