"""Differentiable augmentation (Zhao et al. 2020, DiffAugment): changes the images that D sees, and passes gradients.

One draw is applied to all kinds of images alike, so that paired feature matching compares equal views.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SHIFT = 0.125
"""Largest translation, as a share of height and width."""
CUTOUT = 0.5
"""Side of the square cut out, as a share of height and width."""


class Augmentation:
    """Random changes for `n` images, drawn once from `generator`; call it on images [n, 3, H, W] in [-1, 1]."""

    def __init__(self, policy: str, n: int, generator: torch.Generator) -> None:
        """`policy`: color, translation, or all (both, with cutout)."""
        self.policy = policy
        self._uniform = torch.rand(7, n, 1, 1, 1, generator=generator, device=generator.device)

    def __call__(self, images: Tensor) -> Tensor:
        brightness, saturation, contrast, down, right, hole_y, hole_x = self._uniform
        if self.policy in ("color", "all"):
            images = images + (brightness - 0.5)
            images = _scaled_around(images.mean(dim=1, keepdim=True), images, 2.0 * saturation)
            images = _scaled_around(images.mean(dim=(1, 2, 3), keepdim=True), images, contrast + 0.5)
        if self.policy in ("translation", "all"):
            images = _translated(images, down.flatten(), right.flatten())
        if self.policy == "all":
            images = images * _outside_hole(images, hole_y, hole_x)
        return images


def _scaled_around(center: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    return center + factor * (images - center)


def _translated(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each image moved by up to `SHIFT` of its size, with zeros moving in; `down`, `right`: uniform in [0, 1), [n]."""
    n, _, height, width = images.shape
    most_y, most_x = round(SHIFT * height), round(SHIFT * width)
    shift_y = (down * (2 * most_y + 1)).long()
    shift_x = (right * (2 * most_x + 1)).long()
    padded = F.pad(images, (most_x, most_x, most_y, most_y))
    rows = torch.arange(height, device=images.device) + shift_y[:, None]
    columns = torch.arange(width, device=images.device) + shift_x[:, None]
    batch = torch.arange(n, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _outside_hole(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """1 outside and 0 inside a rectangle whose center lies at (y, x), uniform in [0, 1); [n, 1, H, W]."""
    _, _, height, width = images.shape
    rows = torch.arange(height, device=images.device).view(1, 1, -1, 1)
    columns = torch.arange(width, device=images.device).view(1, 1, 1, -1)
    inside_y = (rows + 0.5 - y * height).abs() < CUTOUT * height / 2
    inside_x = (columns + 0.5 - x * width).abs() < CUTOUT * width / 2
    return 1.0 - (inside_y & inside_x).to(images.dtype)
