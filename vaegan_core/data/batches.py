"""Frames as tensors, and batches of them on a device."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # torch is imported where tensors are made: a capture's worker processes do without it
    import torch
    from torch import Tensor

BLOCK = 256
"""Frames converted at once by `image_blocks`."""


def to_images(frames: Tensor) -> Tensor:
    """uint8 [n, H, W, 3] to float32 [n, 3, H, W] in [-1, 1]."""
    return frames.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def to_frames(images: Tensor) -> Tensor:
    """Float [n, 3, H, W] in [-1, 1] to uint8 [n, H, W, 3]."""
    return images.float().add(1.0).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def as_tensor(frames: np.ndarray) -> Tensor:
    """A uint8 array as a tensor without a copy, also when it is read-only (mapped, or in shared memory)."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(frames)


def evenly_spaced(count: int, wanted: int) -> np.ndarray:
    """`wanted` indices (all, if there are fewer) spread evenly over range(count), first and last included; int64."""
    import torch

    indices: np.ndarray = torch.linspace(0, count - 1, min(count, wanted)).round().long().numpy()
    return indices


class TrainBatches:
    """Shuffled training batches; batch `step` is a pure function of (seed, step): a resumed run needs no state.

    Each epoch is one permutation of all frames; a batch may straddle two epochs. The frames stay on `device` as uint8.
    """

    def __init__(
        self, frames: np.ndarray, batch_size: int, seed: int, device: torch.device, horizontal_flip: bool = False
    ) -> None:
        """`frames`: uint8 [N, H, W, 3]. `horizontal_flip` mirrors each with probability 1/2, anew in every epoch."""
        self.frames = as_tensor(frames).to(device)
        self.batch_size = batch_size
        self.seed = seed
        self.horizontal_flip = horizontal_flip
        self._orders: dict[int, Tensor] = {}

    def _order(self, epoch: int) -> Tensor:
        """The N frames in the order of an epoch, int64 [N]; a mirrored one is its index + N."""
        import torch

        if epoch not in self._orders:
            n, generator = len(self.frames), torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
            order = torch.randperm(n, generator=generator)
            if self.horizontal_flip:
                order += n * (torch.rand(n, generator=generator) < 0.5)
            order = order.to(self.frames.device)
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1} | {epoch: order}
        return self._orders[epoch]

    def _drawn(self, step: int) -> Tensor:
        """The frames of batch `step` (from 0) as in `_order`, int64 [batch_size]."""
        import torch

        n, position, parts, left = len(self.frames), step * self.batch_size, [], self.batch_size
        while left:
            epoch, offset = divmod(position, n)
            part = self._order(epoch)[offset : offset + left]
            parts.append(part)
            position += len(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def indices(self, step: int) -> Tensor:
        """Frame indices of batch `step` (from 0), int64 [batch_size]."""
        return self._drawn(step) % len(self.frames)

    def __getitem__(self, step: int) -> Tensor:
        """Images of batch `step`, float32 [batch_size, 3, H, W] in [-1, 1]."""
        import torch

        drawn, n = self._drawn(step), len(self.frames)
        frames = self.frames[drawn % n]
        if self.horizontal_flip:
            frames = torch.where((drawn >= n)[:, None, None, None], frames.flip(2), frames)
        return to_images(frames)


def image_blocks(frames: np.ndarray, indices: np.ndarray, device: torch.device | str = "cpu") -> Iterator[Tensor]:
    """Images [n <= 256, 3, H, W] in [-1, 1] of the indexed frames, uint8 [N, H, W, 3], in blocks."""
    for start in range(0, len(indices), BLOCK):
        yield to_images(as_tensor(frames[indices[start : start + BLOCK]]).to(device))
