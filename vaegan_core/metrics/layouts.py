"""Layouts: a frame set's features of blurred images, so that sharpness neither helps nor hurts.

The Fréchet distance of sharp images charges blur more than a missing layout: streaks from N(0, I) were nearer to real
frames than reconstructions of them. After a blur of 2/27 of the image's height, ground, sky and walls remain, and the
distance agrees with a person's judgment of sample grids (tests/benchmarks/sample_pairs.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from vaegan_core.metrics.distances import frechet_distance, gaussian_moments
from vaegan_core.metrics.feature_space import FeatureSpace
from vaegan_core.metrics.source_classifier import SourceClassifier

BLUR = 2 / 27
"""Standard deviation of the blur, as a share of the image's height."""


@dataclass
class Layouts:
    """The feature space of blurred images, and the reference's statistics in it."""

    space: FeatureSpace
    mean: Tensor
    """float64 [d], of the blurred reference, as `cov` [d, d] is."""
    cov: Tensor

    @classmethod
    def fit(cls, network: SourceClassifier, reference: Iterable[Tensor], reduction: int = 1) -> Layouts:
        """Fits the space to a reference, given as batches of images [n, 3, H, W] in [-1, 1]."""
        space, points = FeatureSpace.fit(network, reference, BLUR, reduction=reduction)
        return cls(space, *gaussian_moments([points]))

    def frechet(self, points: Tensor) -> float:
        """Fréchet distance of points [n, d] of the space to the reference."""
        return frechet_distance(*gaussian_moments([points]), self.mean, self.cov)

    def tensors(self) -> dict[str, Tensor]:
        """All that `load` needs beside the network."""
        space = self.space
        return {
            "std": space.std,
            "center": space.center,
            "components": space.components,
            "mean": self.mean,
            "cov": self.cov,
        }

    @classmethod
    def load(cls, network: SourceClassifier, tensors: dict[str, Tensor], reduction: int = 1) -> Layouts:
        """The layouts whose `tensors` these are."""
        space = FeatureSpace(network, tensors["std"], tensors["center"], tensors["components"], BLUR, reduction)
        return cls(space, tensors["mean"], tensors["cov"])
