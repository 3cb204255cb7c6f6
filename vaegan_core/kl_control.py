"""KL controls: each turns the step and the KL (nats) into the KL term of the loss. State lives on the device."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from vaegan_core.config import AdaptiveBetaConfig, CapacityConfig, FixedBetaConfig, weight_of_sigma

DEFAULT_SIGMA = 0.1


class KLControl(ABC):
    @abstractmethod
    def term(self, kl: Tensor, step: int) -> Tensor:
        """The weighted KL term at `step` (from 0); a scalar that carries gradient to the encoder."""

    @abstractmethod
    def curves(self, step: int) -> dict[str, Tensor | float]:
        """What to plot: the weight and, where there is one, the capacity in nats."""

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        assert not state, f"this control keeps no state, but got {sorted(state)}"


class FixedBeta(KLControl):
    """beta * KL (Higgins et al. 2017, eq. 4)."""

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def term(self, kl: Tensor, step: int) -> Tensor:  # noqa: ARG002
        return self.beta * kl

    def curves(self, step: int) -> dict[str, Tensor | float]:  # noqa: ARG002
        return {"kl/beta": self.beta}


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
    """beta * KL, beta driven towards a target KL by dual ascent (Peng et al. 2019, eq. 10), or the same on log beta."""

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


def make_kl_control(
    config: FixedBetaConfig | CapacityConfig | AdaptiveBetaConfig,
    *,
    num_values: int,
    variance: float,
    steps: int,
    device: torch.device,
) -> KLControl:
    """The control of `config`; `num_values` is 3 H W, `variance` Var x of the training frames, `steps` in all."""

    def weight(given: float | None, sigma: float | None) -> float:
        return given if given is not None else weight_of_sigma(sigma or DEFAULT_SIGMA, num_values, variance)

    match config:
        case FixedBetaConfig():
            return FixedBeta(weight(config.beta, config.sigma))
        case CapacityConfig():
            return Capacity(weight(config.gamma, config.gamma_sigma), config.capacity_max, config.ramp * steps)
        case AdaptiveBetaConfig():
            return AdaptiveBeta(config, weight(config.beta_init, None), device)
