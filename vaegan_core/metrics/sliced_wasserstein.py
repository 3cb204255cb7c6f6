"""Sliced Wasserstein distance over the levels of a Laplacian pyramid (Karras et al. 2018, sec. 5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vaegan_core.metrics.settings import SETTINGS

QUANTILES = 256
SLICED_SEED = 2018


class SlicedReference(NamedTuple):
    """What a sliced Wasserstein distance is measured to, with levels from the finest to the whole image."""

    mean: Tensor
    """[levels, 3], of the reference's pyramid, as `std` is."""
    std: Tensor
    quantiles: Tensor
    """[levels, projections, QUANTILES], of projected patches, on the CPU."""
    num_images: int
    """Images of the reference: the directions that it was projected on depend on it."""


def sliced_reference(images: Tensor) -> SlicedReference:
    """The reference made of images [n, 3, H, W] in [-1, 1]."""
    levels = laplacian_pyramid(images)
    mean = torch.stack([level.mean((0, 2, 3)) for level in levels])
    step = 1 / 127.5  # keeps a level without contrast from being divided by zero
    std = torch.stack([level.std((0, 2, 3)) for level in levels]).clamp(min=step)
    return SlicedReference(mean, std, _projected_quantiles(levels, mean, std, len(images)), len(images))


def sliced_wasserstein(images: Tensor, reference: SlicedReference) -> float:
    """Sliced Wasserstein-1 distance of images [n, 3, H, W] in [-1, 1] (Karras et al. 2018, sec. 5).

    Patches of a Laplacian pyramid, projected on random directions; mean over levels and directions, in standard
    deviations of the reference at that level. Unlike there, the pyramid goes down to the whole image, and both sets are
    normalized alike: normalizing each by itself hides a shift of color. Directions are the reference's, and positions
    of patches the same in every call. Compare distances of equally many images only.
    """
    mean, std = reference.mean.to(images.device), reference.std.to(images.device)
    quantiles = _projected_quantiles(laplacian_pyramid(images), mean, std, reference.num_images)
    return float((quantiles - reference.quantiles).abs().mean())


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """Images [n, 3, H, W] as levels, the finest first, each half as high and wide as the one before, rounded up.

    A level is the difference between an image and its halved image enlarged again; the last level is the first image
    that fits into a patch (Burt & Adelson 1983, with box means as the low-pass filter). Enlarged, they sum to the
    images.
    """
    levels = []
    while max(images.shape[2:]) > SETTINGS.sliced.patch:
        halved = F.avg_pool2d(images, 2, ceil_mode=True)
        levels.append(images - F.interpolate(halved, size=images.shape[2:], mode="bilinear"))
        images = halved
    return [*levels, images]


def _projected_quantiles(levels: list[Tensor], mean: Tensor, std: Tensor, count: int) -> Tensor:
    """Levels [n, 3, h, w] to quantile functions of normalized, projected patches [levels, projections, QUANTILES].

    `count`: images of the reference.
    """
    sizes = [tuple(level.shape[2:]) for level in levels]
    drawn, drawn_for_reference = _draws(sizes, len(levels[0])), _draws(sizes, count)
    quantiles = []
    for level, center, scale, own, of_reference in zip(levels, mean, std, drawn, drawn_for_reference, strict=True):
        patches = _patches((level - center.view(3, 1, 1)) / scale.view(3, 1, 1), own.top, own.left)
        directions = of_reference.directions.to(patches)
        projected = np.sort((patches @ directions).T.cpu().numpy())  # several times as fast as torch's
        ranks = (np.arange(QUANTILES) + 0.5) / QUANTILES * projected.shape[1]
        quantiles.append(projected[:, ranks.astype(int)])
    return torch.from_numpy(np.stack(quantiles))


class _Draw(NamedTuple):
    top: Tensor
    """[n, patches, 1, 1], of the corners of patches, as `left` is."""
    left: Tensor
    directions: Tensor
    """[3 * high * wide, projections], of length 1."""


def _draws(sizes: list[tuple[int, ...]], count: int) -> Iterator[_Draw]:
    """The random numbers for levels of these sizes of `count` images. Stored references depend on their order: the
    directions come after as many positions as the reference has."""
    generator = torch.Generator().manual_seed(SLICED_SEED)
    for height, width in sizes:
        high, wide = _patch(height, width)
        shape = (count, SETTINGS.sliced.patches if (high, wide) != (height, width) else 1, 1, 1)
        top = torch.randint(height - high + 1, shape, generator=generator)
        left = torch.randint(width - wide + 1, shape, generator=generator)
        directions = torch.randn(3 * high * wide, SETTINGS.sliced.projections, generator=generator)
        yield _Draw(top, left, F.normalize(directions, dim=0))


def _patch(height: int, width: int) -> tuple[int, int]:
    """Height and width of the patches of an image."""
    return min(SETTINGS.sliced.patch, height), min(SETTINGS.sliced.patch, width)


def _patches(images: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Patches of [n, 3, h, w] as rows: [n * patches, 3 * high * wide]; the whole image if it is no larger."""
    high, wide = _patch(*images.shape[2:])
    rows, columns = top + torch.arange(high).view(-1, 1), left + torch.arange(wide)
    patches = images.permute(0, 2, 3, 1)[torch.arange(len(images)).view(-1, 1, 1, 1), rows, columns]
    return patches.flatten(0, 1).flatten(1)
