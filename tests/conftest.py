"""A small set of real frames, captured once per session, and its feature network."""

from pathlib import Path

import pytest

from vaegan_core.data.doom.capture import capture_doom
from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.frame_features import FrameFeatures, ensure_features

pytest_plugins = ["servers"]


@pytest.fixture(scope="session")
def frame_set_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 training and 60 test frames of ViZDoom, 31x17."""
    path = tmp_path_factory.mktemp("frames") / "doom"
    capture_doom(path, num_frames=300, height=17, width=31, seed=0, progress=lambda _: None)
    return path


@pytest.fixture(scope="session")
def frame_set(frame_set_dir: Path) -> FrameSet:
    return FrameSet.open(frame_set_dir)


@pytest.fixture(scope="session")
def frame_features(frame_set: FrameSet) -> FrameFeatures:
    return ensure_features(frame_set)
