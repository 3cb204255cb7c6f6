"""Distances between sets of images, as pure functions of their features or pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

# ---------------------------------------------------------------------------------------------------------------------
# Gaussian moments


def gaussian_moments(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean [d] and unbiased covariance [d, d] of features [n, d] that come in batches; float64, on the CPU.

    Features should be roughly centered, because sums of squares are subtracted. Raises ValueError for fewer than two.
    """
    count = 0
    total = square = torch.zeros(())
    for batch in batches:
        features = batch.double()
        count += len(features)
        total = total.to(features) + features.sum(0)
        square = square.to(features) + features.T @ features
    if count < 2:
        raise ValueError(f"moments need at least 2 images, but got {count}; give more images")
    mean = total / count
    cov = (square - count * torch.outer(mean, mean)) / (count - 1)
    return mean.cpu(), cov.cpu()


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), the squared Wasserstein-2 distance of two Gaussians.

    Dowson & Landau 1982, eq. 4; Heusel et al. 2017, eq. 6. Means [d], covariances [d, d]. The product is formed
    symmetrically in float64, so that rank-deficient covariances (fewer images than dimensions) give no complex roots.
    NaN for moments that are not finite.
    """
    if not all(bool(t.isfinite().all()) for t in (mean_a, cov_a, mean_b, cov_b)):
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

    Diagonal on purpose: with n = 1,024 latents in 1,024 dimensions the full covariance is off by 0.25 per
    dimension, even for perfect latents (its eigenvalues spread from 0 to 4; Marchenko & Pastur 1967). The distance is
    blind to correlations.
    """
    mean, std = z.double().mean(0), z.double().std(0, correction=0)
    return float((mean.square() + (std - 1).square()).mean())


# ---------------------------------------------------------------------------------------------------------------------
# Pairs


def kernel_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy, kernel (a.b / d + 1)^3 (KID: Bińkowski et al. 2018, sec. 4).

    Takes two sets of equally many features [n, d]. Two samples of one distribution score about 0, also below.
    """
    from torchmetrics.image.kid import poly_mmd  # takes seconds to import

    return float(poly_mmd(features_a.double(), features_b.double()))


def pair_distances(features: Tensor) -> Tensor:
    """Euclidean distances between features [n, d] of one set, float64 [n, n]; infinite from each to itself."""
    distances = torch.cdist(features.double(), features.double())
    return distances.fill_diagonal_(torch.inf)


def median_pair_distance(distances: Tensor) -> float:
    """Median of `pair_distances` [n, n], over the pairs of different images."""
    return float(distances[torch.ones_like(distances, dtype=torch.bool).triu(1)].median())


def nearest_distances(features: Tensor, others: Tensor) -> Tensor:
    """Euclidean distance from each of features [n, d] to the nearest of others [m, d]: [n]."""
    return torch.cdist(features, others).amin(1)


def auc(positive: Tensor, negative: Tensor) -> float:
    """Share of pairs in which the positive's score is higher, ties counting half (Mann & Whitney 1947). Scores [n]."""
    difference = positive.unsqueeze(1) - negative
    return float((difference.sign().double().mean() + 1) / 2)


# ---------------------------------------------------------------------------------------------------------------------
# Structural similarity


def structural_similarity(images: Tensor, others: Tensor) -> float:
    """Mean SSIM of images [n, 3, H, W] in [-1, 1] with others (Wang et al. 2004, eq. 13); 1 for equal images.

    The Gaussian window has 11x11 pixels and a standard deviation of 1.5, and is smaller in proportion for images
    without room for it. Images are compared on [0, 2]: the luminance term needs intensities of at least 0.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # takes seconds to import

    radius = min(images.shape[2:]) - 1
    images, others = ((x + 1).contiguous(memory_format=torch.channels_last) for x in (images, others))  # 4x as fast
    similarity = structural_similarity_index_measure(
        images, others, sigma=1.5 if radius >= 5 else radius / 3.5, data_range=2.0
    )
    assert isinstance(similarity, Tensor)
    return float(similarity)
