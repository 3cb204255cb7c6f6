"""Distances between sets of images, as pure functions of their features or pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# ---------------------------------------------------------------------------------------------------------------------
# Gaussian moments


def gaussian_moments(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean [d] and unbiased covariance [d, d] of features [n, d] that come in batches; float64, on the CPU.

    Features should be about centered: sums of squares are subtracted. Raises ValueError for fewer than two.
    """
    count = 0
    total = square = torch.zeros(())
    for batch in batches:
        features = batch.double()
        count += len(features)
        total = total.to(features) + features.sum(0)
        square = square.to(features) + features.T @ features
    if count < 2:
        raise ValueError(f"moments need at least 2 images, got {count}; give more")
    mean = total / count
    cov = (square - count * torch.outer(mean, mean)) / (count - 1)
    return mean.cpu(), cov.cpu()


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), the squared Wasserstein-2 distance of two Gaussians.

    Dowson & Landau 1982, eq. 4; Heusel et al. 2017, eq. 6. Means [d], covariances [d, d]. The product is formed
    symmetrically in float64, so that rank-deficient covariances (fewer images than dimensions) give no complex roots.
    Of moments that are not finite: not a number.
    """
    if not all(bool(each.isfinite().all()) for each in (mean_a, cov_a, mean_b, cov_b)):
        return math.nan
    mean_a, cov_a, mean_b, cov_b = (t.double().cpu() for t in (mean_a, cov_a, mean_b, cov_b))
    root = _symmetric_root(cov_a)
    eigenvalues = torch.linalg.eigvalsh(root @ cov_b @ root)
    trace_of_root = eigenvalues.clamp(min=0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * trace_of_root
    return max(0.0, float(distance))


def _symmetric_root(matrix: Tensor) -> Tensor:
    """Square root of a symmetric positive semi-definite matrix; rounding below zero counts as zero."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def standard_normal_distance(z: Tensor) -> float:
    """Squared Wasserstein-2 distance of latents [n, L] to N(0, I), both as Gaussians with independent dimensions:
    m^2 + (s - 1)^2, mean over dimensions. 0 for the prior itself, 1 for z = 0; sampling alone gives 1.5 / n.

    Diagonal on purpose: of n = 1,024 latents in 1,024 dimensions the full covariance is off by .25 a dimension, for
    perfect latents too (its eigenvalues spread from 0 to 4; Marchenko & Pastur 1967). Blind to correlations.
    """
    mean, std = z.double().mean(0), z.double().std(0, correction=0)
    return float((mean.square() + (std - 1).square()).mean())


# ---------------------------------------------------------------------------------------------------------------------
# Pairs


def kernel_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy, kernel (a.b / d + 1)^3 (KID: Bińkowski et al. 2018, sec. 4).

    Two sets of equally many features [n, d]; about 0, also below, for two samples of one distribution.
    """
    from torchmetrics.image.kid import poly_mmd  # takes seconds to import

    return float(poly_mmd(features_a.double(), features_b.double()))


def pair_distances(features: Tensor) -> Tensor:
    """Euclidean distances between features [n, d] of one set, float64 [n, n]; infinite from each to itself."""
    distances = torch.cdist(features.double(), features.double())
    return distances.fill_diagonal_(torch.inf)


def median_pair_distance(distances: Tensor) -> float:
    """Of `pair_distances` [n, n], over the pairs of different images."""
    return float(distances[torch.ones_like(distances, dtype=torch.bool).triu(1)].median())


def nearest_distances(features: Tensor, others: Tensor) -> Tensor:
    """Euclidean distance of each of features [n, d] to the nearest of others [m, d]: [n]."""
    return torch.cdist(features, others).amin(1)


def auc(positive: Tensor, negative: Tensor) -> float:
    """Share of pairs in which the positive's score is higher, ties counting half (Mann & Whitney 1947). Scores [n]."""
    difference = positive.unsqueeze(1) - negative
    return float((difference.sign().double().mean() + 1) / 2)


# ---------------------------------------------------------------------------------------------------------------------
# Sliced Wasserstein distance

PATCH = 7
PATCHES = 16
"""Of each image, at every level that is larger than a patch."""
PROJECTIONS = 64
QUANTILES = 256
SLICED_SEED = 2018


class SlicedReference(NamedTuple):
    """What a sliced Wasserstein distance is measured to. Levels from the finest to the whole image."""

    mean: Tensor
    """[levels, 3], of the reference's pyramid."""
    std: Tensor
    quantiles: Tensor
    """[levels, PROJECTIONS, QUANTILES], of projected patches, on the CPU."""


def sliced_reference(images: Tensor) -> SlicedReference:
    """Of images [n, 3, H, W] in [-1, 1]."""
    levels = laplacian_pyramid(images)
    mean = torch.stack([level.mean((0, 2, 3)) for level in levels])
    step = 1 / 127.5  # a level without contrast is not divided by nothing
    std = torch.stack([level.std((0, 2, 3)) for level in levels]).clamp(min=step)
    return SlicedReference(mean, std, _projected_quantiles(levels, mean, std))


def sliced_wasserstein(images: Tensor, reference: SlicedReference) -> float:
    """Sliced Wasserstein-1 distance of images [n, 3, H, W] in [-1, 1] (Karras et al. 2018, sec. 5).

    Patches of a Laplacian pyramid, projected on random directions; mean over levels and directions, in standard
    deviations of the reference at that level. Otherwise than there, the pyramid goes down to the whole image, and
    both sets are normalized alike: normalizing each by itself hides a shift of color. Projections and places of
    patches are the same in every call. Distances are comparable at the same number of images.
    """
    mean, std = reference.mean.to(images.device), reference.std.to(images.device)
    found = _projected_quantiles(laplacian_pyramid(images), mean, std)
    return float((found - reference.quantiles).abs().mean())


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """Images [n, 3, H, W] as levels, the finest first, each half as high and wide as the one before, rounded up.

    A level is what its halved image, enlarged again, lacks; the last is the first image that fits into a patch
    (Burt & Adelson 1983, with box means for the low-pass filter). Enlarged again they sum up to the images.
    """
    levels = []
    while max(images.shape[2:]) > PATCH:
        halved = F.avg_pool2d(images, 2, ceil_mode=True)
        levels.append(images - F.interpolate(halved, size=images.shape[2:], mode="bilinear"))
        images = halved
    return [*levels, images]


def _projected_quantiles(levels: list[Tensor], mean: Tensor, std: Tensor) -> Tensor:
    """Levels [n, 3, h, w] to quantile functions of normalized, projected patches [levels, PROJECTIONS, QUANTILES]."""
    generator = torch.Generator().manual_seed(SLICED_SEED)
    found = []
    for level, center, scale in zip(levels, mean, std, strict=True):
        patches = _random_patches((level - center.view(3, 1, 1)) / scale.view(3, 1, 1), generator)
        directions = F.normalize(torch.randn(patches.shape[1], PROJECTIONS, generator=generator), dim=0)
        projected = np.sort((patches @ directions.to(patches)).T.cpu().numpy())  # several times as fast as torch's
        ranks = (np.arange(QUANTILES) + 0.5) / QUANTILES * projected.shape[1]
        found.append(projected[:, ranks.astype(int)])
    return torch.from_numpy(np.stack(found))


def _random_patches(images: Tensor, generator: torch.Generator) -> Tensor:
    """Patches of [n, 3, h, w] as rows: [n * PATCHES, 3 * PATCH * PATCH], or each whole image if it is no larger."""
    n, _, height, width = images.shape
    high, wide = min(PATCH, height), min(PATCH, width)
    shape = (n, PATCHES if (high, wide) != (height, width) else 1, 1, 1)
    top = torch.randint(height - high + 1, shape, generator=generator) + torch.arange(high).view(-1, 1)
    left = torch.randint(width - wide + 1, shape, generator=generator) + torch.arange(wide)
    patches = images.permute(0, 2, 3, 1)[torch.arange(n).view(-1, 1, 1, 1), top, left]
    return patches.flatten(0, 1).flatten(1)
