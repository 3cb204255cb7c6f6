"""What frames look like, to find copies across sources and sources that show nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

CELLS = 8
"""Rows and columns of the grid whose mean colors stand for a frame."""
ALIKE = 2.0
"""Root mean square difference of mean colors, in levels of 255, up to which one frame may be a copy of another."""
LEAST_CHANGE, MOST_CHANGE, CHANGE = 1.0, 5.0, 0.2
"""Root mean square difference, in levels of 255, that another size and compression may make to a frame: a share of its
standard deviation, between these bounds. Different frames of Doom differ by 8 and more."""
BLANK = 1.0
"""Standard deviation, in levels of 255, below which a frame is of one color: what noise of a compression leaves."""
ROWS, COLUMNS = 256, 4096
"""Frames compared at once."""


def signatures(frames: np.ndarray) -> np.ndarray:
    """Frames, uint8 [n, H, W, 3], to the mean colors of an 8 x 8 grid, float32 [n, 192]."""
    means: np.ndarray = frames.astype(np.float32)
    for axis in (1, 2):
        edges = np.arange(CELLS) * frames.shape[axis] // CELLS
        sizes = np.diff([*edges, frames.shape[axis]])
        shape = [1, 1, 1, 1]
        shape[axis] = CELLS
        means = np.add.reduceat(means, edges, axis) / sizes.reshape(shape).astype(np.float32)
    return means.reshape(len(frames), -1)


def are_blank(frames: np.ndarray) -> np.ndarray:
    """Whether each of the frames, uint8 [n, H, W, 3], is of one color; bool [n]."""
    blank: np.ndarray = frames.std((1, 2), dtype=np.float32).max(1) < BLANK
    return blank


def are_copies(looks: np.ndarray, sources: np.ndarray, frame: Callable[[int], np.ndarray]) -> np.ndarray:
    """Whether each frame looks the same as one of a source with a smaller number; bool [n].

    `looks`: `signatures` of all frames, [n, 192]; `sources`: numbers of their sources, [n]; `frame` gives one frame,
    uint8 [H, W, 3]. Signatures find the likeliest original, the frames themselves decide.
    """
    brightness = looks.mean(1, dtype=np.float64)
    order = np.argsort(brightness, kind="stable")
    brightness = brightness[order]
    copies = np.zeros(len(looks), bool)
    for at in range(0, len(order), ROWS):
        rows = order[at : at + ROWS]
        low, high = brightness[at] - ALIKE, brightness[min(at + ROWS, len(order)) - 1] + ALIKE
        near = order[np.searchsorted(brightness, low) : np.searchsorted(brightness, high, "right")]
        distances, originals = _nearest(looks, sources, rows, near)
        for row, original in zip(rows[distances <= ALIKE**2], originals[distances <= ALIKE**2], strict=True):
            copies[row] = _is_copy(frame(row).astype(np.float32), frame(original))
    return copies


def _is_copy(frame: np.ndarray, original: np.ndarray) -> bool:
    allowed = np.clip(CHANGE * frame.std(), LEAST_CHANGE, MOST_CHANGE)
    return bool(np.square(frame - original).mean() <= allowed**2)


def _nearest(
    looks: np.ndarray, sources: np.ndarray, rows: np.ndarray, near: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each of `rows`, the mean squared distance to the most similar frame of an earlier source among `near`,
    infinite if there is none, and that frame's index."""
    distances, originals = np.full(len(rows), np.inf), np.zeros(len(rows), np.int64)
    mine = looks[rows].astype(np.float32)
    for start in range(0, len(near), COLUMNS):
        some = near[start : start + COLUMNS]
        theirs = looks[some].astype(np.float32)
        squares = np.square(mine).mean(1)[:, None] + np.square(theirs).mean(1) - 2 / mine.shape[1] * (mine @ theirs.T)
        squares[sources[some] >= sources[rows][:, None]] = np.inf
        best = squares.argmin(1)
        found = squares[np.arange(len(rows)), best]
        closer = found < distances
        distances[closer], originals[closer] = found[closer], some[best[closer]]
    return distances, originals
