"""What each block says of a question: values of its levels, and the contrasts between them."""

from __future__ import annotations

from collections.abc import Sequence
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
    ended: np.ndarray
    """Trials by level [B, L]."""
    diverged: np.ndarray
    """How many of them diverged [B, L]."""

    def first(self, count: int) -> Contrasts:
        """The first `count` blocks."""
        fields = (self.blocks, self.values, self.effects, self.ended, self.diverged)
        return Contrasts(*(field[:count] for field in fields))


def contrasts_of(asked: Asked, runs: Sequence[BlockRun]) -> Contrasts:
    """Contrasts within each block, by least squares on the block's trials.

    Other questions whose levels vary among the same trials are accounted for by effects of their own, so that a
    fraction of a factorial from which a diverged trial is missing misleads no more than it must.
    """
    mine = [run for run in runs if asked.name in run.levels]
    blocks = sorted({run.block for run in mine})
    by_block = {block: [run for run in mine if run.block == block] for block in blocks}
    size = len(asked.levels)
    counts = np.zeros((2, len(blocks), size))
    for row, block in enumerate(blocks):
        for run in by_block[block]:
            counts[:, row, run.levels[asked.name]] += 1, run.diverged
    told = [_told(asked, by_block[block]) for block in blocks]
    return Contrasts(
        np.array(blocks, int),
        np.array([values for values, _ in told]).reshape(-1, size),
        np.array([effects for _, effects in told]).reshape(-1, size - 1),
        *counts,
    )


def _told(asked: Asked, runs: Sequence[BlockRun]) -> tuple[np.ndarray, np.ndarray]:
    """Values of the levels [L] and effects [L - 1] in one block."""
    kept = [(run, value) for run in runs if np.isfinite(value := _value(asked, run))]
    size = len(asked.levels)
    if not kept:
        return np.full(size, np.nan), np.full(size - 1, np.nan)
    outcomes = np.array([value for _, value in kept])
    own = np.eye(size)[[run.levels[asked.name] for run, _ in kept]]
    others, middle = _others(asked, [run for run, _ in kept])
    if asked.across:
        log_across = np.log([run.across[asked.name] for run, _ in kept])[:, None]
        design = np.hstack([own * log_across, own, others])
        rows = np.hstack([np.eye(size), np.zeros((size, size + others.shape[1]))])
    else:
        design = np.hstack([own, others])
        rows = np.hstack([np.eye(size), np.tile(middle, (size, 1))])
    inverse = np.linalg.pinv(design)
    return _estimated(rows, design, inverse, outcomes), _estimated(rows[1:] - rows[0], design, inverse, outcomes)


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


def _estimated(rows: np.ndarray, design: np.ndarray, inverse: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Combinations [r, k] of the coefficients, by least squares; NaN where the trials do not tell one."""
    projected = rows @ inverse @ design
    told = np.isclose(projected, rows, atol=1e-8).all(axis=1)
    return np.where(told, rows @ inverse @ outcomes, np.nan)
