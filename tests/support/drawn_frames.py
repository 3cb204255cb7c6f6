"""Frames that are drawn, for machines where no game is installed: skies, grounds and boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vaegan_core.data.frames import FrameSet
from vaegan_core.data.writer import FrameSetWriter

PARTS = 4
"""Sources of a set; the last one is the test split."""


def drawn(path: Path, height: int, width: int, count: int = 400) -> FrameSet:
    """Writes `count` frames, three quarters of them for training, what a small network can learn."""
    random = np.random.default_rng(0)
    frames = np.zeros((count, height, width, 3), np.uint8)
    for frame in frames:
        horizon = random.integers(height // 4, 3 * height // 4)
        frame[:horizon], frame[horizon:] = random.integers(0, 255, 3), random.integers(0, 255, 3)
        top, left = random.integers(0, height - height // 3), random.integers(0, width - width // 3)
        frame[top : top + height // 3, left : left + width // 3] = random.integers(0, 255, 3)
    with FrameSetWriter(path, height=height, width=width) as writer:
        for index, part in enumerate(np.array_split(frames, PARTS)):
            writer.add_source(f"part {index}", "test" if index == PARTS - 1 else "train")
            writer.append(part)
        return writer.finish({"kind": "drawn"})
