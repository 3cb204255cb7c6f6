"""Videos and folders of images with real frames."""

from pathlib import Path

import pytest
from clips import enlarged, write_clip
from media_captures import save_images

from vaegan_core.data.frames import FrameSet


@pytest.fixture(scope="module")
def clips(frame_set: FrameSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos a, b, c with 20, 22, 24 real frames, each of another map."""
    folder = tmp_path_factory.mktemp("clips")
    for i, source in enumerate(frame_set.manifest.sources[:3]):
        write_clip(folder / f"{'abc'[i]}.mp4", enlarged(frame_set.frames[source.start : source.start + 20 + 2 * i]))
    return folder


@pytest.fixture
def folders(frame_set: FrameSet, tmp_path: Path) -> Path:
    """Folders a … e of 12 real frames each, as 0.png … 11.png in the size of the frame set."""
    for i, name in enumerate("abcde"):
        save_images(tmp_path / "images" / name, frame_set.frames[12 * i : 12 * i + 12])
    return tmp_path / "images"
