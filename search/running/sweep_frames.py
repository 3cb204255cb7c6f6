"""The frames of a sweep: opened, checked, and kept in memory for all trials."""

from __future__ import annotations

import numpy as np
from rich.console import Console

from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.terminal import stage
from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.frame_features import FrameFeatures, ensure_features
from vaegan_core.metrics.inception import load_inception


def check_inception(sweep: Sweep) -> str | None:
    """The file of Inception weights that the sweep names, None without. Raises ValueError when it is not usable."""
    weights: str | None = sweep.config.base["evaluate"].get("inception_weights")
    if weights is not None:
        load_inception(weights)
    return weights


def open_frames(sweep: Sweep, console: Console) -> tuple[FrameSet, FrameFeatures]:
    """The sweep's frames and their feature network, trained now when it is missing."""
    frame_set = FrameSet.open(sweep.config.base["frames"])
    with stage(console, "Reading the frame set and its feature network") as say_more:

        def progress(done: int, total: int) -> None:
            say_more(f"Training the frame set's feature network: {done} of {total} steps")

        return frame_set, ensure_features(frame_set, progress)


def check_same_frames(journal: Journal, frame_set: FrameSet, features: FrameFeatures) -> None:
    """Raises ValueError when the frames are not those that the sweep began with: its numbers would not compare."""
    for what, before, now in (
        ("frames", journal.meta(Meta.FRAMES), frame_set.fingerprint),
        ("feature network of the frames", journal.meta(Meta.FEATURES), features.fingerprint),
    ):
        if before != now:
            raise ValueError(f"the {what} at {frame_set.path} changed since the sweep began: {before} then, {now} now")


def in_memory(frame_set: FrameSet) -> FrameSet:
    """The same frames as a plain array, which Ray's object store shares without copies per trial."""
    return FrameSet(np.asarray(frame_set.frames), frame_set.manifest, None)
