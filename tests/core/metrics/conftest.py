"""Metrics of toy models on the session's frames."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from toy_models import LATENT_DIM, PCA, Judge, Toy, alone

from vaegan_core.config.training import EvaluateConfig
from vaegan_core.data.batches import as_tensor, to_images
from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.evaluator import Evaluator
from vaegan_core.metrics.frame_features import FrameFeatures


@pytest.fixture(scope="module")
def pca(frame_set: FrameSet) -> PCA:
    return PCA(to_images(as_tensor(frame_set.train)))


@pytest.fixture
def evaluate(frame_set: FrameSet, frame_features: FrameFeatures) -> Callable[..., dict[str, float]]:
    """Metrics of a toy of these functions, the discriminator fooled completely unless given."""

    def metrics(
        encoder: nn.Module, decoder: nn.Module, discriminator: Any = None, latent_dim: int = LATENT_DIM, **config: Any
    ) -> dict[str, float]:
        settings = EvaluateConfig(**{"every": 1, "num_test": 60, "num_samples": 200, **config})
        evaluator = Evaluator(
            settings, frame_set, frame_features, latent_dim, torch.device("cpu"), contextlib.nullcontext
        )
        judge = discriminator or Judge(lambda x: torch.zeros(len(x)))
        return evaluator.metrics(Toy(encoder, decoder), judge, alone)

    return metrics
