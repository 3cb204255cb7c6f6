"""Distances between sets of images, as pure functions of their features."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


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
    """
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
