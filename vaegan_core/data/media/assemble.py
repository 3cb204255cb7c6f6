"""Puts the parts of sources together into a frame set: which sources are for testing, and in what order frames come."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vaegan_core.data.frames import Split
from vaegan_core.data.media.parts import Part, PartJob
from vaegan_core.data.writer import FrameSetWriter

BLOCK = 256
"""Frames held in memory."""


@dataclass(frozen=True)
class Stretch:
    """Frames `start` to `stop` of `source`, which become the frame set's source `name`."""

    name: str
    split: Split
    source: str
    start: int
    stop: int


def assemble(
    parts: Sequence[tuple[PartJob, Part]],
    directory: Path,
    writer: FrameSetWriter,
    *,
    test_share: float,
    seed: int,
    say: Callable[[str], None],
) -> str:
    """Appends the frames of all `parts`, which lie in `directory`, to `writer`, training sources first.

    Returns what the split was made by: "source", or "time" for a single source. Raises ValueError for a single frame.
    """
    counts: dict[str, int] = {}
    of_source: dict[str, list[tuple[PartJob, Part]]] = {}
    for job, part in parts:
        counts[job.source] = counts.get(job.source, 0) + part.frames
        of_source.setdefault(job.source, []).append((job, part))
    counts = {source: count for source, count in counts.items() if count}
    if len(counts) == 1:
        kind = parts[0][0].settings.kind
        stretches, split_by = _cut(*counts.popitem(), test_share, kind, say), "time"
    else:
        test = choose_test_sources(list(counts), test_share, seed)
        stretches = [Stretch(s, "test" if s in test else "train", s, 0, n) for s, n in counts.items()]
        split_by = "source"
    for stretch in sorted(stretches, key=lambda s: s.split == "test"):
        writer.add_source(stretch.name, stretch.split)
        for block in _read(of_source[stretch.source], directory, stretch.start, stretch.stop):
            writer.append(block)
    return split_by


def choose_test_sources(names: list[str], share: float, seed: int) -> set[str]:
    """The test sources: the `share` of the names, at least one and not all, that have the smallest hashes.

    The order of the names does not matter; one more source moves at most one other between the splits.
    """
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    return set(ranked[: min(max(round(share * len(names)), 1), len(names) - 1)])


def _cut(source: str, count: int, test_share: float, kind: str, say: Callable[[str], None]) -> list[Stretch]:
    """The first part of a single source for training, the rest for testing."""
    if count < 2:
        raise ValueError(
            f"a frame set needs frames to train on and others to test on, but {source} gave only one; give more {kind}"
            + (", or take more of its frames with every" if kind == "videos" else "")
        )
    middle = min(max(round((1 - test_share) * count), 1), count - 1)
    say(
        f"Only one source, {source}: its first {middle} frames are for training, its last {count - middle} for "
        f"testing. They may look alike; more than one {'video' if kind == 'videos' else 'folder'} makes a better test."
    )
    first, last = f"{source} (first part)", f"{source} (last part)"
    return [Stretch(first, "train", source, 0, middle), Stretch(last, "test", source, middle, count)]


def _read(parts: Sequence[tuple[PartJob, Part]], directory: Path, start: int, stop: int) -> Iterator[np.ndarray]:
    """Frames `start` to `stop` of the source that these parts make up, uint8 [n <= BLOCK, H, W, 3] at a time."""
    before = 0
    for job, part in parts:
        first, end = max(start - before, 0), min(stop - before, part.frames)
        before += part.frames
        if first >= end:
            continue
        settings = job.settings
        with (directory / f"{job.key}.raw").open("rb") as file:
            file.seek(first * settings.frame_bytes)
            for at in range(first, end, BLOCK):
                data = file.read(min(BLOCK, end - at) * settings.frame_bytes)
                yield np.frombuffer(data, np.uint8).reshape(-1, settings.height, settings.width, 3)
