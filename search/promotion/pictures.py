"""Pictures of a model: samples, reconstructions, and the way from one frame to another; into PNG files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vaegan_core.data.batches import as_tensor, evenly_spaced, to_frames, to_images
from vaegan_core.data.frames import FrameSet
from vaegan_core.data.media.pictures import fit_picture, read_picture, reason_of
from vaegan_core.metrics.grids import GRID_COLUMNS, GRID_FRAMES
from vaegan_core.model.saved import SavedModel
from vaegan_core.tensor_files import write_atomically


def check_empty(directory: Path) -> None:
    """Raises ValueError unless the directory is new or empty."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        what = "holds files" if directory.is_dir() else "is a file"
        raise ValueError(f"--output must be a new or empty directory, but {directory} {what}; name another")


def draw_samples(model: SavedModel, count: int, seed: int, sampler: str | None) -> Tensor:
    """Images [count, 3, H, W] in [-1, 1], the same that the served model gives for this seed and count."""
    noise = torch.randn(count, model.latent_dim, generator=torch.Generator().manual_seed(seed))
    return model.sample(noise, sampler)


def interpolate(model: SavedModel, pair: Tensor) -> Tensor:
    """GRID_COLUMNS images [., 3, H, W] at even steps on the line between the posterior means of two, [2, 3, H, W].

    The first and the last are the two reconstructions. Raises ValueError for more or fewer images than two.
    """
    if len(pair) != 2:
        raise ValueError(f"--interpolate needs exactly two frames, but got {len(pair)}")
    first, last = model.encode(pair)
    return model.decode(torch.stack([torch.lerp(first, last, step) for step in torch.linspace(0, 1, GRID_COLUMNS)]))


def read_frames(paths: Iterable[Path], size: tuple[int, int], per_set: int = GRID_FRAMES) -> Tensor:
    """Images [n, 3, H, W] in [-1, 1] of `size` (H, W): a file's picture, `per_set` test frames of a frame set.

    Pictures are cropped around the center and resized. Test frames are spread evenly, first and last included. Raises
    ValueError for a file that holds no picture, and for a frame set of another size.
    """
    frames = [_of_frame_set(path, size, per_set) if path.is_dir() else _of_file(path, size) for path in paths]
    return to_images(as_tensor(np.concatenate(frames)))


def _of_frame_set(path: Path, size: tuple[int, int], count: int) -> np.ndarray:
    frame_set = FrameSet.open(path)
    height, width = frame_set.manifest.height, frame_set.manifest.width
    if (height, width) != size:
        raise ValueError(f"the model takes frames of {size[1]}x{size[0]}, but those of {path} are {width}x{height}")
    chosen: np.ndarray = frame_set.test[evenly_spaced(len(frame_set.test), count)]
    return chosen


def _of_file(path: Path, size: tuple[int, int]) -> np.ndarray:
    try:
        image = fit_picture(read_picture(path, *size)[0], *size, "crop")[0]
    except Exception as error:  # Pillow raises whatever a damaged file makes it raise
        raise ValueError(f"{path} cannot be used as a frame: {reason_of(error)}") from None
    return np.asarray(image)[np.newaxis]


def write_pictures(directory: Path, images: Tensor, grids: Mapping[str, bytes]) -> None:
    """Writes 00000.png and so on, of images [n, 3, H, W] in [-1, 1], and PNGs by name."""
    for number, frame in enumerate(to_frames(images).numpy()):
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, format="PNG")
        write_atomically(directory / f"{number:05d}.png", buffer.getvalue())
    for name, grid in grids.items():
        write_atomically(directory / name, grid)
