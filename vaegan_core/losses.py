"""Pure loss functions, one formula each. Reductions: a mean over everything, unless the docstring says otherwise."""

from __future__ import annotations

import math
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from vaegan_core.models import Posterior


def gaussian_kl_divergence(posterior: Posterior) -> Tensor:
    """KL(q(z|x) || N(0, I)) in nats: sum over latent dimensions, mean over the batch (Kingma & Welling 2014)."""
    mean, logvar = posterior.mean, posterior.logvar
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).sum(dim=1).mean()


class AdversarialLoss(Protocol):
    """Three functions of logits [n], each a scalar: D on real, D on fake, and the generator's on fake."""

    def real(self, logits: Tensor) -> Tensor: ...
    def fake(self, logits: Tensor) -> Tensor: ...
    def generator(self, logits: Tensor) -> Tensor: ...


class BCE:
    """Binary cross-entropy with the non-saturating generator loss (Goodfellow et al. 2014, sec. 3)."""

    def real(self, logits: Tensor) -> Tensor:
        return F.softplus(-logits).mean()  # -log sigmoid(D(x))

    def fake(self, logits: Tensor) -> Tensor:
        return F.softplus(logits).mean()  # -log (1 - sigmoid(D(G)))

    def generator(self, logits: Tensor) -> Tensor:
        return F.softplus(-logits).mean()  # -log sigmoid(D(G))


class Hinge:
    """Hinge loss (Lim & Ye 2017; Miyato et al. 2018, eq. 16-17)."""

    def real(self, logits: Tensor) -> Tensor:
        return F.relu(1.0 - logits).mean()

    def fake(self, logits: Tensor) -> Tensor:
        return F.relu(1.0 + logits).mean()

    def generator(self, logits: Tensor) -> Tensor:
        return -logits.mean()


class LeastSquares:
    """Least squares with a = 0, b = c = 1 (Mao et al. 2017, eq. 9)."""

    def real(self, logits: Tensor) -> Tensor:
        return 0.5 * (logits - 1.0).square().mean()

    def fake(self, logits: Tensor) -> Tensor:
        return 0.5 * logits.square().mean()

    def generator(self, logits: Tensor) -> Tensor:
        return 0.5 * (logits - 1.0).square().mean()


ADVERSARIAL_LOSSES: dict[str, AdversarialLoss] = {"bce": BCE(), "hinge": Hinge(), "lsgan": LeastSquares()}


def feature_scale(real_features: Tensor, scale_free: bool) -> Tensor | float:
    """What a feature loss is divided by: the mean over channels of the variance over batch and space, or 1."""
    if not scale_free:
        return 1.0
    return real_features.detach().var(dim=(0, 2, 3), unbiased=False).mean() + 1e-8


def feature_matching_loss(features: Tensor, real_features: Tensor, scale: Tensor | float) -> Tensor:
    """Paired ||phi(x_i') - phi(x_i)||^2, mean over batch, channels and space (Larsen et al. 2016, eq. 6-7)."""
    return (features - real_features).square().mean() / scale


def pixel_loss(x_recon: Tensor, x: Tensor, kind: str, variance: float | None) -> Tensor:
    """Mean squared or absolute error over pixels and channels; divided by `variance` or its root unless None."""
    if kind == "mse":
        return F.mse_loss(x_recon, x) / (variance or 1.0)
    return F.l1_loss(x_recon, x) / math.sqrt(variance or 1.0)
