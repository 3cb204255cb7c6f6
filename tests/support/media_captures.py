"""Frame sets from folders of images and videos, in the size that tests use."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vaegan_core.data.frames import VERIFIED_FILE, FrameSet
from vaegan_core.data.media.capture import capture_media
from vaegan_core.data.media.files import find_images, find_videos
from vaegan_core.data.media.parts import MediaSettings

VIDEOS = MediaSettings("videos", height=17, width=31, every="1")
IMAGES = MediaSettings("images", height=17, width=31)


def save_images(folder: Path, frames: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{i}.png")


def capture_images(output: Path, *paths: Path, settings: MediaSettings = IMAGES, **options: Any) -> FrameSet:
    return capture_media(output, find_images(paths, output), settings, **options)


def capture_videos(output: Path, *paths: Path, settings: MediaSettings = VIDEOS, **options: Any) -> FrameSet:
    return capture_media(output, find_videos(paths, output), settings, **options)


def contents(directory: Path) -> dict[str, bytes]:
    """Its files, but for the note of which file was verified, which names an inode."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != VERIFIED_FILE}
