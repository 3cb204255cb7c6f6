"""Modes that networks run in for a while: frozen, or with their running statistics held."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import _SpectralNorm


def mixes_batch(network: nn.Module) -> bool:
    """Whether, in training, what comes out for one image depends on the others in its batch."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def spectral_norms(network: nn.Module) -> list[_SpectralNorm]:
    return [module for module in network.modules() if isinstance(module, _SpectralNorm)]


@contextmanager
def held_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, forward passes leave running statistics and spectral norm's power iteration as they are. The batch
    statistics of batch norm are still the batch's own."""
    power_iterations = spectral_norms(module)
    batch_norms = [(m, m.momentum) for m in module.modules() if isinstance(m, _BatchNorm)]
    for iteration in power_iterations:
        iteration.eval()
    for norm, _ in batch_norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for iteration in power_iterations:
            iteration.train(module.training)
        for norm, momentum in batch_norms:
            norm.momentum = momentum


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Held statistics, and no parameter takes gradient."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        with held_statistics(module):
            yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
