"""Videos made of known frames."""

from pathlib import Path
from typing import Any

import av
import numpy as np


def enlarged(frames: np.ndarray, times: int = 8) -> np.ndarray:
    """uint8 [n, H, W, 3] with every pixel repeated, cut to even sizes as encoders want them."""
    large = frames.repeat(times, 1).repeat(times, 2)
    return large[:, : large.shape[1] // 2 * 2, : large.shape[2] // 2 * 2]


def write_clip(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    rate: int = 10,
    key_every: int = 10,
    rotation: int = 0,
    matrix: list[int] | None = None,
    pixel_aspect: int | None = None,
) -> Path:
    """Encodes uint8 [n, H, W, 3] in good quality; the index lies in front, so that a cut mp4 can still be opened."""
    options: dict[str, Any] = {"options": {"movflags": "faststart"}} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.gop_size = key_every
        if codec == "libx264":
            stream.options = {"crf": "8", "sc_threshold": "0", "preset": "veryfast"}
        else:
            stream.options = {"qmax": "3", "sc_threshold": "1000000000"}
        if rotation:
            stream.set_display_rotation(rotation)
        if matrix:
            stream.set_display_matrix(matrix)
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))
    return path


def cut(path: Path, source: Path, share: float) -> Path:
    """The first `share` of the bytes of `source`."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path
