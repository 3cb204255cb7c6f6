"""KL controls: each turns the step and the KL in nats into the KL term of the loss. Their state stays on the device."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from vaegan_core.config.loss import (
    AdaptiveBetaConfig,
    CapacityConfig,
    FixedBetaConfig,
    KLConfig,
    LossConfig,
    OptimalSigmaConfig,
)
from vaegan_core.losses.functional import free_bits, kl_of_gaussian, kl_of_moments, kl_per_dimension
from vaegan_core.losses.terms import KL, KL_BATCH, TermValues
from vaegan_core.model.networks import Posterior

DEFAULT_SIGMA = 0.1


class KLControl(ABC):
    """How a KL becomes a term of the loss."""

    @abstractmethod
    def term(self, kl: Tensor, step: int) -> Tensor:
        """The weighted KL term at `step` (from 0), from a KL in nats; a scalar with gradient to the encoder unless
        its weight is 0."""

    @abstractmethod
    def curves(self, step: int) -> dict[str, Tensor | float]:
        """Curve values at `step`: the weight and, for a capacity, the capacity in nats."""

    def state(self) -> dict[str, Tensor]:
        """Tensors to save in a checkpoint."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continues from what `state` returned."""
        assert not state, f"this control keeps no state, but got {sorted(state)}"


class FixedBeta(KLControl):
    """beta * KL (Higgins et al. 2017, eq. 4), beta rising linearly from 0 over warmup_steps (Bowman et al. 2016)."""

    def __init__(self, beta: float, warmup_steps: float) -> None:
        self.beta = beta
        self.warmup_steps = warmup_steps

    def weight(self, step: int) -> float:
        """beta at `step` (from 0)."""
        return self.beta * min(1.0, step / self.warmup_steps) if self.warmup_steps else self.beta

    def term(self, kl: Tensor, step: int) -> Tensor:
        weight = self.weight(step)
        return weight * (kl if weight else kl.detach())

    def curves(self, step: int) -> dict[str, Tensor | float]:
        return {"kl/beta": self.weight(step)}


class Capacity(KLControl):
    """gamma * |KL - C|, C rising linearly from 0 to capacity_max over capacity_steps (Burgess et al. 2018, eq. 8)."""

    def __init__(self, gamma: float, capacity_max: float, capacity_steps: float) -> None:
        self.gamma = gamma
        self.capacity_max = capacity_max
        self.capacity_steps = capacity_steps

    def capacity(self, step: int) -> float:
        """C at `step`, in nats."""
        return self.capacity_max * min(1.0, step / self.capacity_steps)

    def term(self, kl: Tensor, step: int) -> Tensor:
        return self.gamma * (kl - self.capacity(step)).abs()

    def curves(self, step: int) -> dict[str, Tensor | float]:
        return {"kl/beta": self.gamma, "kl/capacity": self.capacity(step)}


class AdaptiveBeta(KLControl):
    """beta * KL, beta driven toward a target KL by dual ascent (Peng et al. 2019, eq. 10), or the same on log beta."""

    def __init__(self, config: AdaptiveBetaConfig, beta_init: float, device: torch.device) -> None:
        self.config = config
        self.beta = torch.tensor(beta_init, device=device)

    def term(self, kl: Tensor, step: int) -> Tensor:  # noqa: ARG002
        beta = self.beta
        self.beta = self._next(kl.detach())
        return beta * kl

    def _next(self, kl: Tensor) -> Tensor:
        config = self.config
        if config.law == "log":
            beta = self.beta * torch.exp(config.rate * (kl / config.target - 1.0).clamp(max=10.0))
        else:
            beta = self.beta + config.rate * (kl - config.target)
        return beta.clamp(config.beta_min, config.beta_max)

    def curves(self, step: int) -> dict[str, Tensor | float]:  # noqa: ARG002
        return {"kl/beta": self.beta}

    def state(self) -> dict[str, Tensor]:
        return {"beta": self.beta}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.beta = state["beta"].to(self.beta.device)


class MovingMoments:
    """Mean and variance of z per latent dimension over the batch, blended with those of earlier steps.

    moments <- momentum * moments + (1 - momentum) * (moments of the batch), starting from those of N(0, I). Old moments
    carry no gradient.
    """

    def __init__(self, momentum: float, latent_dim: int, device: torch.device) -> None:
        self.momentum = momentum
        self.mean = torch.zeros(latent_dim, device=device)
        self.var = torch.ones(latent_dim, device=device)

    def kl(self, posterior: Posterior, z: Tensor) -> Tensor:  # noqa: ARG002
        """Blends in z [n, latent_dim]; returns KL(N(mean, var) || N(0, 1)) of the moments in nats, [latent_dim]."""
        mean = self.momentum * self.mean + (1.0 - self.momentum) * z.mean(dim=0)
        var = self.momentum * self.var + (1.0 - self.momentum) * z.var(dim=0, unbiased=False).clamp(min=1e-8)
        self.mean, self.var = mean.detach(), var.detach()
        return kl_of_moments(mean, var)

    def state(self) -> dict[str, Tensor]:
        return {"moments/mean": self.mean, "moments/var": self.var}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.mean, self.var = (state[f"moments/{name}"].to(self.mean.device) for name in ("mean", "var"))


class MovingCovariance:
    """Mean and full covariance of the aggregated posterior over the batch, blended like `MovingMoments`.

    For posteriors N(mu, diag sigma^2) they are the mean of mu, and Cov(mu) + diag(mean sigma^2), in float64.
    """

    def __init__(self, momentum: float, latent_dim: int, device: torch.device) -> None:
        self.momentum = momentum
        self.mean = torch.zeros(latent_dim, dtype=torch.float64, device=device)
        self.covariance = torch.eye(latent_dim, dtype=torch.float64, device=device)

    def kl(self, posterior: Posterior, z: Tensor) -> Tensor:  # noqa: ARG002
        """Blends in the posteriors of a batch; returns KL(N(mean, covariance) || N(0, I)) in nats, a scalar."""
        of_batch = posterior.mean.double().mean(dim=0)
        centered = posterior.mean - of_batch
        covariance = centered.T @ centered / len(centered)
        if posterior.logvar is not None:
            covariance = covariance + posterior.logvar.double().exp().mean(dim=0).diag()
        mean = self.momentum * self.mean + (1.0 - self.momentum) * of_batch
        covariance = self.momentum * self.covariance + (1.0 - self.momentum) * covariance
        self.mean, self.covariance = mean.detach(), covariance.detach()
        return kl_of_gaussian(mean, covariance)

    def state(self) -> dict[str, Tensor]:
        return {"moments/mean": self.mean, "moments/covariance": self.covariance}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.mean, self.covariance = (state[f"moments/{name}"].to(self.mean.device) for name in ("mean", "covariance"))


MOMENTS: dict[str, type[MovingMoments | MovingCovariance]] = {"batch": MovingMoments, "full_batch": MovingCovariance}
"""Moments over the batch by `loss.kl.estimator`."""


class KLTerm:
    """The KL of a step as configured: which KL is used, how much of it is free, and how it is weighted."""

    def __init__(self, config: KLConfig, control: KLControl, latent_dim: int, device: torch.device) -> None:
        self.free_bits = config.free_bits
        self.control = control
        moments = MOMENTS.get(config.estimator)
        self.moments = moments(config.momentum, latent_dim, device) if moments else None

    def __call__(self, posterior: Posterior, z: Tensor, step: int) -> tuple[Tensor, TermValues]:
        """The weighted term at `step` (from 0), and the raw KLs in nats: per sample (`KL`) and of moments (`KL_BATCH`).

        A deterministic encoder has no KL per sample; without moments its term is zero.
        """
        raw: TermValues = {}
        kl = torch.zeros((), device=z.device)
        if posterior.logvar is not None:
            kl = kl_per_dimension(posterior)
            raw[KL] = kl.sum()
        if self.moments:
            kl = self.moments.kl(posterior, z)
            raw[KL_BATCH] = kl.sum()
        return self.control.term(free_bits(kl, self.free_bits).sum(), step), raw

    def curves(self, step: int) -> dict[str, Tensor | float]:
        """Curve values of the control at `step`."""
        return self.control.curves(step)

    def state(self) -> dict[str, Tensor]:
        """Tensors to save in a checkpoint: those of the control, and the moments."""
        return self.control.state() | (self.moments.state() if self.moments else {})

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continues from what `state` returned."""
        if self.moments:
            self.moments.load_state(state)
        self.control.load_state({key: value for key, value in state.items() if not key.startswith("moments/")})


def make_kl_term(
    loss: LossConfig, *, latent_dim: int, num_values: int, variance: float, steps: int, device: torch.device
) -> KLTerm:
    """The KL term of `loss`, for images of `num_values` = 3 H W values and training frames of variance `variance`.

    `steps` is the number of steps of the whole training, which warm-up and ramp are shares of.
    """
    control = _make_control(in_nats(loss.kl, latent_dim), loss.pixel.weight, num_values, variance, steps, device)
    return KLTerm(loss.kl, control, latent_dim, device)


def in_nats(config: KLConfig, latent_dim: int) -> KLConfig:
    """The same control with its constants converted from a KL averaged over dimensions (`per_dimension`) to nats."""
    if not config.per_dimension:
        return config
    powers = {"beta": -1, "gamma": -1, "capacity_max": 1, "target": 1, "beta_init": -1, "beta_min": -1, "beta_max": -1}
    if isinstance(config, AdaptiveBetaConfig) and config.law == "linear":
        powers["rate"] = -2
    given = {name: getattr(config, name, None) for name in powers}
    scaled = {name: value * latent_dim ** powers[name] for name, value in given.items() if value is not None}
    return config.model_copy(update={**scaled, "per_dimension": False})


def kl_bound(config: KLConfig, latent_dim: int) -> float | None:
    """The KL in nats that the control aims at: capacity or target; None for a fixed beta."""
    match in_nats(config, latent_dim):
        case CapacityConfig(capacity_max=nats) | AdaptiveBetaConfig(target=nats):
            return nats
    return None


def _make_control(
    config: KLConfig, pixel_weight: float, num_values: int, variance: float, steps: int, device: torch.device
) -> KLControl:
    def weight(given: float | None, sigma: float | None) -> float:
        return given if given is not None else weight_of_sigma(sigma or DEFAULT_SIGMA, num_values, variance)

    match config:
        case FixedBetaConfig():
            return FixedBeta(weight(config.beta, config.sigma), config.warmup * steps)
        case CapacityConfig():
            return Capacity(weight(config.gamma, config.gamma_sigma), config.capacity_max, config.ramp * steps)
        case AdaptiveBetaConfig():
            return AdaptiveBeta(config, weight(config.beta_init, None), device)
        case OptimalSigmaConfig():
            return FixedBeta(optimal_weight(pixel_weight, num_values), 0.0)


def weight_of_sigma(sigma: float, num_values: int, variance: float) -> float:
    """KL weight per nat that decoder standard deviation `sigma` stands for, beside a scale-free pixel loss of weight 1.

    -log N(x; x_recon, sigma^2) = N MSE / (2 sigma^2) + const, so MSE / Var x + beta KL is the negative ELBO up to scale
    for beta = 2 sigma^2 / (N Var x); N = 3 H W is `num_values`, Var x of the training frames is `variance`.
    """
    return 2.0 * sigma**2 / (num_values * variance)


def optimal_weight(pixel_weight: float, num_values: int) -> float:
    """KL weight per nat beside a pixel loss of weight w and kind log_mse, N = 3 H W values an image: 2 w / N.

    w log MSE + 2 w / N KL is 2 w / N times N/2 log MSE + KL, the negative ELBO (up to a constant) with the decoder
    variance that is best for the batch, sigma^2 = MSE (Rybkin et al. 2021, optimal sigma-VAE).
    """
    return 2.0 * pixel_weight / num_values
