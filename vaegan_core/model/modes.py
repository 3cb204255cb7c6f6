"""Modes that networks run in for a while: frozen, or with their running statistics held."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def mixes_batch(network: nn.Module) -> bool:
    """Whether, in training, the output for one image depends on the others in its batch."""
    return any(isinstance(module, BatchNorm) for module in network.modules())


def spectral_norms(network: nn.Module) -> list[nn.Module]:
    """The modules in whose training mode a forward pass advances the power iteration.

    PyTorch has no public name for them. Checked with torch 2.15.
    """
    return [module for module in network.modules() if isinstance(module, _SpectralNorm)]


def singular_vectors(network: nn.Module) -> list[Tensor]:
    """The estimated first singular vectors, two per layer with spectral norm; buffers of the network.

    PyTorch has no public name for them. Checked with torch 2.15.
    """
    return [vector for norm in spectral_norms(network) for vector in (norm._u, norm._v)]  # type: ignore[misc]


@contextmanager
def held_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, forward passes change neither running statistics nor the power iteration of spectral norm. Batch norm
    still normalizes by the statistics of the batch."""
    power_iterations = spectral_norms(module)
    batch_norms = [(m, m.momentum) for m in module.modules() if isinstance(m, BatchNorm)]
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
    """Inside, statistics are held and no parameter takes gradient."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        with held_statistics(module):
            yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
