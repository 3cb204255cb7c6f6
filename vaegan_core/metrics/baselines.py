"""What trivial models score: every image painted in its own mean color."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vaegan_core.data.batches import image_blocks
from vaegan_core.data.frames import FrameSet


def mean_color(images: Tensor) -> Tensor:
    """Each of images [n, 3, H, W] painted in its own mean color."""
    return images.mean((2, 3), keepdim=True).expand_as(images)


def pixel_baselines(frame_set: FrameSet) -> dict[str, float]:
    """`mean_color_mse`, `mean_image_mse` and `train_variance` of `FrameFeatures.baselines`.

    Takes one pass over each split, with float64 sums.
    """
    train, test = frame_set.train, frame_set.test
    total = square = torch.zeros((), dtype=torch.float64)
    for images in image_blocks(train, np.arange(len(train))):
        total = total + images.double().sum(0)
        square = square + images.double().square().mean((2, 3)).sum(0)
    mean_image = total / len(train)
    variance = (square / len(train) - mean_image.mean((1, 2)).square()).mean()
    color_error = image_error = 0.0
    for images in image_blocks(test, np.arange(len(test))):
        color_error += float((images - mean_color(images)).double().square().mean((1, 2, 3)).sum())
        image_error += float((images.double() - mean_image).square().mean((1, 2, 3)).sum())
    return {
        "mean_color_mse": color_error / len(test),
        "mean_image_mse": image_error / len(test),
        "train_variance": float(variance),
    }
