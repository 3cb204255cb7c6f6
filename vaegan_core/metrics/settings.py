"""The settings that a frame set's features and statistics are made with."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class SlicedSettings:
    """Settings of the sliced Wasserstein distance."""

    images: int = 128
    """Images behind a distance."""
    patch: int = 7
    """Height and width of a patch in pixels."""
    patches: int = 16
    """Patches of each image, at every level that is larger than a patch."""
    projections: int = 64
    """Random directions."""


@dataclass(frozen=True)
class FeatureSettings:
    """Settings of source classifier, feature space and reference.

    They are stored with the features; features with other settings are made anew.
    """

    channels: tuple[int, ...] = (32, 64, 128, 128)
    """Channels of the convolutions; the first is at full size, the others halve the image."""
    grid: tuple[int, int] = (2, 4)
    """Height and width that the last feature map is averaged to."""
    steps: int = 350
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    roll: int = 2
    """Pixels that training images are rolled by at most, in each direction."""
    color_jitter: float = 0.3
    """Standard deviation of a random gain and offset of every channel, of every second image on average, in training.
    Without it colors tell most sources apart, and the features see little of shapes: see
    tests/benchmarks/sample_metric.py."""
    dimensions: int = 128
    """Principal directions kept of the features."""
    max_reference: int = 10_000
    """Training frames of the reference."""
    held_out: tuple[float, int] = (0.2, 4)
    """Share of the training frames held out of the reference, and the stretches of every source that it comes from,
    evenly spread over time: the last stretch alone may show one place only."""
    compared: int = 2_000
    """Frames behind the floor and the distance of mean colors, as many as a trial has samples; test frames likewise."""
    sliced: SlicedSettings = field(default_factory=SlicedSettings)

    def dump(self) -> dict[str, Any]:
        """Plain data as JSON gives it back, to store and to compare."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


SETTINGS = FeatureSettings()
MOST_PIXELS = 8192
"""Largest area of an image that goes through the network as it is; the time that takes goes with the area."""
CPU_SECONDS_PER_PIXEL = 0.08
"""What training takes on a core without bfloat16, for each pixel of an image."""
MAX_PAIRED = 1_000
"""Images of which every pair is looked at: kernel distance, neighbors, diversity."""


def reduction_of(height: int, width: int) -> int:
    """The smallest whole factor that reduces images of that size to at most 8,192 pixels."""
    return max(1, math.ceil(math.sqrt(height * width / MOST_PIXELS)))


def training_minutes(height: int, width: int) -> int:
    """Roughly the CPU minutes that training the feature network of frames of that size takes."""
    return math.ceil(CPU_SECONDS_PER_PIXEL * height * width / reduction_of(height, width) ** 2 / 60)
