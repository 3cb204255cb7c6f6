"""A store of planted sweeps for every test: a copy of one that is empty."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from promotable import Planted, Trained, copy_store, train_one

from search.tracking.client import ensure_experiment
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE
from vaegan_core.metrics.frame_features import FrameFeatures


@pytest.fixture(scope="session")
def trained(frame_set: FrameSet, frame_features: FrameFeatures, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_one(tmp_path_factory.mktemp("trained"), frame_set, frame_features)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once, because the first use of a store creates its tables, which takes seconds."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    ensure_experiment(MlflowClient(f"sqlite:///{path}"), "planted")
    return path


@pytest.fixture
def untrained(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planted:
    """For tests that look at no weights."""
    monkeypatch.chdir(tmp_path)
    trained = Trained(tmp_path / "none", {PIXEL_MSE: 0.5, LAYOUT_FD: 100.0}, tmp_path / "frames", "f" * 16)
    return Planted(copy_store(empty_store, tmp_path), trained)


@pytest.fixture
def planted(trained: Trained, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planted:
    monkeypatch.chdir(tmp_path)
    return Planted(copy_store(empty_store, tmp_path), trained)
