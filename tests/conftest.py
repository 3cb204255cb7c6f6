"""A small set of real frames, captured once per session, and its feature network."""

import os
from pathlib import Path

import pytest
from filelock import FileLock

from vaegan_core.data.doom.capture import capture_doom
from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.frame_features import FrameFeatures, ensure_features

pytest_plugins = ["servers"]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all processes of a session share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def frame_set_dir(shared: Path) -> Path:
    """240 training and 60 test frames of ViZDoom, 31x17, with their feature network."""
    path = shared / "frames" / "doom"
    with FileLock(shared / "frames.lock"):
        if not path.exists():
            capture_doom(path, num_frames=300, height=17, width=31, seed=0, progress=lambda _: None)
        ensure_features(FrameSet.open(path))
    return path


@pytest.fixture(scope="session")
def frame_set(frame_set_dir: Path) -> FrameSet:
    return FrameSet.open(frame_set_dir)


@pytest.fixture(scope="session")
def frame_features(frame_set: FrameSet) -> FrameFeatures:
    return ensure_features(frame_set)
