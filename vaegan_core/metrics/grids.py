"""Image grids as PNG."""

from __future__ import annotations

import io

from PIL import Image
from torch import Tensor

from vaegan_core.data.batches import to_frames

GRID_COLUMNS = 8
GRID_FRAMES = 16
GRID_SAMPLES = 32


def png(images: Tensor) -> bytes:
    """A PNG of images [n, 3, H, W] in [-1, 1] in rows of GRID_COLUMNS."""
    from torchvision.utils import make_grid  # takes seconds to import

    grid = make_grid(images, nrow=GRID_COLUMNS, padding=1, pad_value=1.0)
    buffer = io.BytesIO()
    Image.fromarray(to_frames(grid.unsqueeze(0))[0].cpu().numpy()).save(buffer, format="PNG")
    return buffer.getvalue()
