"""Pure loss functions, one formula each. Reductions: a mean over everything, unless the docstring says otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vaegan_core.model.networks import Posterior

SMALLEST_MSE = 1e-8
"""Added to a mean squared error before its logarithm."""
RELATIVE_JITTER = 1e-9
"""Share of a covariance's mean variance that is added to its diagonal before it is factorized."""

# --- KL divergence ----------------------------------------------------------------------------------------------------


def kl_of_moments(mean: Tensor, var: Tensor) -> Tensor:
    """KL(N(mean, var) || N(0, 1)) in nats, elementwise (Kingma & Welling 2014, app. B)."""
    return 0.5 * (mean.square() + var - 1.0 - var.log())


def kl_of_gaussian(mean: Tensor, covariance: Tensor) -> Tensor:
    """KL(N(mean, covariance) || N(0, I)) = 1/2 (tr S + m'm - L - log det S) in nats, a scalar.

    `mean` [L], `covariance` [L, L] positive definite, both float64; the result is float32. By a Cholesky factor; NaN
    where there is none.
    """
    variances = covariance.diagonal()
    jitter = RELATIVE_JITTER * variances.detach().mean() * torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
    factor, info = torch.linalg.cholesky_ex(covariance + jitter)
    log_determinant = 2.0 * factor.diagonal().log().sum()
    kl = 0.5 * (variances.sum() + mean.square().sum() - len(mean) - log_determinant)
    return torch.where(info == 0, kl, math.nan).float()


def kl_per_dimension(posterior: Posterior) -> Tensor:
    """KL(q(z|x) || N(0, I)) in nats, [latent_dim]: mean over the batch. Undefined for a deterministic encoder."""
    mean, logvar = posterior.mean, posterior.logvar
    assert logvar is not None, "a deterministic encoder has no KL per sample"
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean(dim=0)


def gaussian_kl_divergence(posterior: Posterior) -> Tensor:
    """KL(q(z|x) || N(0, I)) in nats: sum over latent dimensions, mean over the batch (Kingma & Welling 2014)."""
    return kl_per_dimension(posterior).sum()


def free_bits(kl: Tensor, nats: float) -> Tensor:
    """KL per latent dimension [latent_dim], at least `nats` each; below it no gradient (Kingma et al. 2016, eq. 15)."""
    return kl.clamp(min=nats) if nats else kl


# --- Adversarial losses -----------------------------------------------------------------------------------------------


class AdversarialLoss(Protocol):
    """Three functions of logits of any shape, each a scalar: D on real, D on fake, and the generator's on fake."""

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


ADVERSARIAL_LOSSES: dict[str, AdversarialLoss] = {
    "bce": BCE(),
    "hinge": Hinge(),
    "lsgan": LeastSquares(),
    "relativistic": BCE(),  # of D(fake) - D(real), pair by pair: see LossTerms.relative
}


def bce_chance_loss(real: float, fake: float) -> float:
    """The discriminator's smallest BCE when nothing tells real from fake, weights `real` and `fake` in all.

    Its output is then real / (real + fake), and the loss that of a coin of this bias. Zero when one weight is zero.
    """
    total = real + fake
    return -sum(weight * math.log(weight / total) for weight in (real, fake) if weight)


def gradient_penalty(logits_of: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """1/2 |grad_x D(x)|^2: sum over pixels and channels, mean over the batch (Mescheder et al. 2018, eq. 9-10).

    R1 on real images, R2 on fake ones.
    """
    images = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(logits_of(images).sum(), images, create_graph=True)
    return 0.5 * gradient.square().sum(dim=(1, 2, 3)).mean()


def adaptive_weight(reconstruction_gradient: Tensor, adversarial_gradient: Tensor) -> Tensor:
    """|grad L_rec| / (|grad L_GAN| + 1e-6), at most 1e4, at the decoder's last layer (Esser et al. 2021, eq. 7)."""
    ratio: Tensor = reconstruction_gradient.norm() / (adversarial_gradient.norm() + 1e-6)
    return ratio.detach().clamp(max=1e4)


# --- Feature and pixel losses -----------------------------------------------------------------------------------------


def feature_scale(real_features: Tensor, scale_free: bool) -> Tensor | float:
    """What a feature loss is divided by: the mean over channels of the variance over batch and space, or 1."""
    if not scale_free:
        return 1.0
    return real_features.detach().var(dim=(0, 2, 3), unbiased=False).mean() + 1e-8


def feature_matching_loss(features: Tensor, real_features: Tensor, scale: Tensor | float) -> Tensor:
    """Paired ||phi(x_i') - phi(x_i)||^2, mean over batch, channels and space (Larsen et al. 2016, eq. 6-7)."""
    return (features - real_features).square().mean() / scale


def moment_matching_loss(features: Tensor, real_features: Tensor, scale: Tensor | float) -> Tensor:
    """||E phi(x_i') - E phi(x_i)||^2: E over the batch, mean over channels and space (Salimans et al. 2016, 3.1)."""
    return (features.mean(dim=0) - real_features.mean(dim=0)).square().mean() / scale


def pixel_loss(x_recon: Tensor, x: Tensor, kind: str, variance: float | None) -> Tensor:
    """Mean squared or absolute error over pixels and channels, divided by `variance` or its root unless None; or the
    binary cross-entropy of images mapped from [-1, 1] to [0, 1], divided by nothing.

    log_mse is the logarithm of mse, whose mean is over the batch too: up to a factor and a constant the negative
    log-likelihood of a Gaussian decoder with the variance that is best for the batch (Rybkin et al. 2021).
    """
    match kind:
        case "log_mse":
            return (F.mse_loss(x_recon, x) + SMALLEST_MSE).log() - math.log(variance or 1.0)
        case "mse":
            return F.mse_loss(x_recon, x) / (variance or 1.0)
        case "l1":
            return F.l1_loss(x_recon, x) / math.sqrt(variance or 1.0)
        case "bce":
            return F.binary_cross_entropy((x_recon + 1.0) / 2.0, (x + 1.0) / 2.0)
    raise AssertionError(kind)
