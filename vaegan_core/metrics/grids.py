"""Image grids as PNG."""

from __future__ import annotations

import io

import torch
from PIL import Image
from torch import Tensor

from vaegan_core.data.batches import to_frames

GRID_COLUMNS = 8
GRID_FRAMES = 16
GRID_SAMPLES = 32


def png(images: Tensor, columns: int = GRID_COLUMNS) -> bytes:
    """A PNG of images [n, 3, H, W] in [-1, 1] in rows of `columns`."""
    from torchvision.utils import make_grid  # takes seconds to import

    grid = make_grid(images, nrow=columns, padding=1, pad_value=1.0)
    buffer = io.BytesIO()
    Image.fromarray(to_frames(grid.unsqueeze(0))[0].cpu().numpy()).save(buffer, format="PNG")
    return buffer.getvalue()


def png_of_pairs(above: Tensor, below: Tensor) -> bytes:
    """A PNG that shows each of the second images below its own of the first; both [n, 3, H, W] in [-1, 1]."""
    columns = min(GRID_COLUMNS, len(above))
    blank = above.new_ones(-len(above) % columns, *above.shape[1:])
    rows = zip(*(torch.split(torch.cat([images, blank]), columns) for images in (above, below)), strict=True)
    return png(torch.cat([row for pair in rows for row in pair]), columns)
