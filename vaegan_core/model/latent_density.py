"""The ex-post density: a Gaussian, or a mixture of them, fitted to z of training frames after training.

A decoder is trained on z ~ q(z|x). Where the aggregated posterior q(z) = E_x q(z|x) differs from N(0, I), samples from
N(0, I) ask the decoder for images of latents that it has never seen; samples from a density fitted to q(z) do not
(Ghosh et al. 2020, "From variational to deterministic autoencoders", sec. 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vaegan_core.model.networks import Posterior

PREFIX = "density"
"""First part of the tensors' names, beside those of a model's weights."""
SMALLEST_VARIANCE = 1e-6
"""Added to every variance, so that a covariance without full rank has a Cholesky factor."""
GOLDEN_RATIO = 1.618033988749895
"""Multiples of it, modulo 1, spread evenly over [0, 1): every stretch of samples has all components in their shares."""


@dataclass(frozen=True)
class LatentDensity:
    """k Gaussians over z, L = latent_dim."""

    weights: Tensor
    """float32 [k], positive, with sum 1."""
    means: Tensor
    """float32 [k, L]."""
    factors: Tensor
    """float32 [k, L, L], lower triangular: the covariance of a component is factor @ factor.T."""

    @classmethod
    def fit(cls, mean: Tensor, variance: Tensor | None, components: int = 1) -> LatentDensity:
        """The density of z ~ N(mean[i], diag variance[i]), i uniform over n frames; both [n, L], variance None for 0.

        One component has the exact moments of that mixture of n Gaussians: E mu, and Cov mu + diag E sigma^2, where
        Cov mu is shrunk (`shrunk_covariance`), so that L may exceed n. More components are fitted by expectation
        maximization to one z of each frame. The same input gives the same density.
        Raises ValueError for fewer than two frames, or fewer than components.
        """
        if len(mean) < max(2, components):
            raise ValueError(f"a density of {components} components needs as many frames, 2 at least, got {len(mean)}")
        mean = mean.double().cpu()
        spread = torch.zeros_like(mean) if variance is None else variance.double().cpu()
        if components == 1:
            cov = shrunk_covariance(mean) + torch.diag(spread.mean(0) + SMALLEST_VARIANCE)
            return cls(torch.ones(1), mean.mean(0, keepdim=True).float(), torch.linalg.cholesky(cov)[None].float())
        return cls._fit_mixture(mean + spread.sqrt() * _noise(mean.shape), components)

    @classmethod
    def _fit_mixture(cls, z: Tensor, components: int) -> LatentDensity:
        from sklearn.mixture import GaussianMixture  # takes seconds to import

        mixture = GaussianMixture(components, reg_covar=1e-4, random_state=0).fit(z.numpy())
        factors = np.linalg.cholesky(mixture.covariances_)
        parts = (torch.from_numpy(part).float() for part in (mixture.weights_, mixture.means_, factors))
        return cls(*parts)

    def sample(self, noise: Tensor) -> Tensor:
        """z [n, L] from noise ~ N(0, I) [n, L], on its device; a row's place decides which component it comes from."""
        place = (torch.arange(1, len(noise) + 1, dtype=torch.float64) * GOLDEN_RATIO).frac()
        chosen = torch.searchsorted(self.weights.double().cumsum(0), place).clamp(max=len(self.weights) - 1)
        z = torch.empty_like(noise)
        for component, (mean, factor) in enumerate(zip(self.means, self.factors, strict=True)):
            rows = (chosen == component).to(noise.device)
            z[rows] = mean.to(noise.device) + noise[rows] @ factor.T.to(noise.device)
        return z

    def tensors(self) -> dict[str, Tensor]:
        """Tensors to store beside a model's weights, by name."""
        return {f"{PREFIX}/{name}": getattr(self, name) for name in ("weights", "means", "factors")}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> LatentDensity | None:
        """The density among these tensors; None for a model that was stored without one."""
        parts = [tensors.get(f"{PREFIX}/{name}") for name in ("weights", "means", "factors")]
        weights, means, factors = parts
        if weights is None or means is None or factors is None:
            return None
        return cls(weights, means, factors)


def density_of(posteriors: Iterable[Posterior], components: int) -> LatentDensity:
    """`LatentDensity.fit` of all images behind these posteriors."""
    parts = [(q.mean, None if q.logvar is None else q.logvar.exp()) for q in posteriors]
    variances = [variance for _, variance in parts if variance is not None]
    return LatentDensity.fit(
        torch.cat([mean for mean, _ in parts]), torch.cat(variances) if variances else None, components
    )


def shrunk_covariance(points: Tensor) -> Tensor:
    """Covariance [L, L] of points [n, L] (n >= 2), shrunk toward a multiple of the identity by the oracle approximating
    shrinkage (Chen, Wiesel, Eldar and Hero 2010, eq. 23): (1 - rho) S + rho tr(S)/L I.

    S is the maximum-likelihood covariance, float64; rho is 1 where n is small beside L, near 0 where it is large.
    """
    n, dim = points.shape
    centered = points.double() - points.double().mean(0)
    cov = centered.T @ centered / n
    trace, square = cov.trace(), cov.square().sum()
    numerator = (1 - 2 / dim) * square + trace.square()
    denominator = (n + 1 - 2 / dim) * (square - trace.square() / dim)
    rho = float((numerator / denominator).clamp(max=1.0)) if denominator > 0 else 1.0
    return (1 - rho) * cov + rho * trace / dim * torch.eye(dim, dtype=cov.dtype)


def _noise(shape: torch.Size) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
