"""Averaged (EMA) weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaegan_core.model.modes import singular_vectors


@torch.no_grad()
def update_average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """averaged <- decay * averaged + (1 - decay) * network, parameters and buffers alike; integers are copied.

    PyTorch's `AveragedModel` does the same, but makes the host wait for the device in every step. The singular vectors
    of spectral norm are normalized afterwards.
    """
    pairs = list(zip(averaged.state_dict().values(), network.state_dict().values(), strict=True))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    lerp_all([mine for mine, _ in floats], [theirs for _, theirs in floats], 1.0 - decay)
    for mine, theirs in pairs:
        if not mine.is_floating_point():
            mine.copy_(theirs)
    for vector in singular_vectors(averaged):
        F.normalize(vector, dim=0, out=vector)


def lerp_all(tensors: list[Tensor], others: list[Tensor], weight: float) -> None:
    """tensors <- tensors + weight * (others - tensors), in place and in few kernels.

    PyTorch's own optimizers use the function, but it is not public. Checked with torch 2.15.
    """
    torch._foreach_lerp_(tensors, others, weight)
