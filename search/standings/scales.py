"""Scores against trivial models, and the ranking by them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.standings.pareto import fronts, hypervolume
from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE, SAMPLES_FD

LARGEST_ACCEPTED_MSE = 0.5
SMALLEST_SAMPLE_SCORE = 0.01
TRIVIAL_PICTURES = {"mean_color_mse": "mean color", "mean_image_mse": "mean image"}
"""Pixel MSE of test images painted their own mean color, and of the mean training image in place of each: the smaller
one is the scale. Where the background stands still, every trial is better than the mean color."""
SAMPLE_BASELINES = {
    LAYOUT_FD: ("mean_color_layout_fd", "floor_layout_fd"),
    SAMPLES_FD: ("mean_color_fd", "floor"),
}
"""Distances of samples that have a scale, the default objective first: the baselines of the mean color and of real
frames. Sweeps of versions before 0.2 have the second one only."""


@dataclass(frozen=True)
class Scales:
    """What the objectives are measured against: trivial pictures, and the floor of the distance, real frames against
    real frames."""

    trivial_mse: float
    distance: str
    """Which distance of samples the scales are for."""
    mean_color: float
    """That distance of the mean color; `floor`, of real frames."""
    floor: float
    trivial: str = "mean color"
    """Which trivial picture has the smaller pixel MSE."""

    @classmethod
    def of(cls, baselines: Mapping[str, float], objectives: Sequence[str]) -> Scales:
        """Scales for the distance among the objectives, or else for the first that there are baselines of."""
        known = [key for key, names in SAMPLE_BASELINES.items() if all(name in baselines for name in names)]
        distance = next((key for key in known if key in objectives), known[0])
        mean_color, floor = (baselines[name] for name in SAMPLE_BASELINES[distance])
        trivial = min((name for name in TRIVIAL_PICTURES if name in baselines), key=baselines.__getitem__)
        return cls(baselines[trivial], distance, mean_color, floor, TRIVIAL_PICTURES[trivial])

    def scores(self, metrics: Mapping[str, float]) -> tuple[float, float]:
        """(s1, s2): pixel MSE as a share of the trivial picture's, and the distance of samples above the floor as a
        share of the mean color's."""
        s1 = metrics[PIXEL_MSE] / self.trivial_mse
        s2 = (metrics[self.distance] - self.floor) / (self.mean_color - self.floor)
        return s1, max(SMALLEST_SAMPLE_SCORE, s2)

    def hypervolume(self, metrics: Iterable[Mapping[str, float]]) -> float:
        """Area between the trivial model (0) and a perfect one (1) that trials with these metrics dominate."""
        return hypervolume([self.scores(trial) for trial in metrics])

    def in_words(self) -> str:
        """What trivial pictures and real frames score."""
        name = self.distance.removeprefix("val/")
        return (
            f"Trivial baselines: pixel_mse {self.trivial_mse:.4f} ({self.trivial}), {name} {self.mean_color:.0f} (mean "
            f"color). Real frames against real frames: {name} {self.floor:.0f}."
        )


def ranking(metrics: Sequence[Mapping[str, float]], objectives: Sequence[str], scales: Scales) -> list[int]:
    """Indices of full-fidelity trials, best first.

    One objective: by its value. Pixel MSE and the distance of samples: the front first, trials with s1 <= 0.5 before
    the others, then by sqrt(s1 s2). Other sets of objectives: the front first, then the sum of places on each.
    """
    if not metrics:
        return []
    values = np.array([[trial[name] for name in objectives] for trial in metrics])
    if len(objectives) == 1:
        return [int(index) for index in np.argsort(values[:, 0], kind="stable")]
    front = fronts(values)
    if set(objectives) != {PIXEL_MSE, scales.distance}:
        sums = sum(np.searchsorted(np.sort(column), column) for column in values.T)
        return sorted(range(len(metrics)), key=lambda i: (front[i] > 0, sums[i]))
    scores = [scales.scores(trial) for trial in metrics]
    return sorted(
        range(len(metrics)),
        key=lambda i: (front[i] > 0, scores[i][0] > LARGEST_ACCEPTED_MSE, math.sqrt(scores[i][0] * scores[i][1])),
    )
