"""Sizes of the networks' feature maps, known without PyTorch."""

from __future__ import annotations

from vaegan_core.config.trial import TrialConfig


def downsampled(size: tuple[int, int], levels: int) -> list[tuple[int, int]]:
    """Sizes (H, W) from the frame itself down to the smallest map, `levels` halvings."""
    sizes = [size]
    for _ in range(levels):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def check_size(config: TrialConfig, size: tuple[int, int]) -> None:
    """Raises ValueError when frames of `size` (H, W) are too small for the configured depth."""
    smallest = downsampled(size, config.model.depth)[-2]
    if min(smallest) < 3:
        raise ValueError(
            f"every map that is halved must be at least 3 x 3, but frames of {size[1]}x{size[0]} reach "
            f"{smallest[1]}x{smallest[0]} at model.depth {config.model.depth}; lower model.depth or use larger frames"
        )
