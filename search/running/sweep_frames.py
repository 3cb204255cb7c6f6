"""The frames of a sweep: opened, checked, and kept in memory for all trials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.terminal import Screen
from vaegan_core.data.frames import FrameSet

if TYPE_CHECKING:  # torch, which `vaegan check` does without
    from vaegan_core.metrics.frame_features import FrameFeatures


def check_inception(sweep: Sweep) -> str | None:
    """The file of Inception weights that the sweep names, or None. Raises ValueError when it is not usable."""
    weights: str | None = sweep.config.base["evaluate"].get("inception_weights")
    if weights is not None:
        from vaegan_core.metrics.inception import load_inception

        load_inception(weights)
    return weights


@dataclass(frozen=True)
class SweepFrames:
    """A sweep's frames and their feature network."""

    frame_set: FrameSet
    features: FrameFeatures


def open_frames(sweep: Sweep, screen: Screen, fetch: Callable[[], Path | None] = lambda: None) -> SweepFrames:
    """The sweep's frames and their feature network, which is trained now if there is none. Frames that are not on this
    machine are fetched, where they can be.

    Raises ValueError when the Inception weights that the sweep names are not usable.
    """
    from vaegan_core.metrics.frame_features import ensure_features

    check_inception(sweep)
    path = Path(sweep.config.base["frames"])
    frame_set = FrameSet.open(path if path.exists() else fetch() or path)
    with screen.stage("Reading the frame set and its feature network") as update:

        def progress(done: int, total: int) -> None:
            update(f"Training the frame set's feature network: {done} of {total} steps")

        return SweepFrames(frame_set, ensure_features(frame_set, progress))


def check_same_frames(journal: Journal, frames: SweepFrames) -> None:
    """Raises ValueError when the frames are not those the sweep began with: its numbers would not compare."""
    for what, before, now in (
        ("frames", journal.meta(Meta.FRAMES), frames.frame_set.fingerprint),
        ("feature network of the frames", journal.meta(Meta.FEATURES), frames.features.fingerprint),
    ):
        if before != now:
            where = frames.frame_set.path
            raise ValueError(f"the {what} at {where} changed since the sweep began: {before} then, {now} now")


def in_memory(frame_set: FrameSet) -> FrameSet:
    """The same frames as a plain array, which Ray's object store shares without copies per trial."""
    return FrameSet(np.asarray(frame_set.frames), frame_set.manifest, None)
