"""Averaged (EMA) weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from vaegan_core.model.modes import spectral_norms


@torch.no_grad()
def update_average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """averaged <- decay * averaged + (1 - decay) * network, parameters and buffers alike; integers are copied.

    Like torch's `AveragedModel`, which however makes the host wait for the device in every step. The singular vectors
    of spectral norm are unit vectors again afterwards.
    """
    pairs = list(zip(averaged.state_dict().values(), network.state_dict().values(), strict=True))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([mine for mine, _ in floats], [theirs for _, theirs in floats], 1.0 - decay)
    for mine, theirs in pairs:
        if not mine.is_floating_point():
            mine.copy_(theirs)
    for norm in spectral_norms(averaged):
        for vector in (norm._u, norm._v):
            F.normalize(vector, dim=0, out=vector)
