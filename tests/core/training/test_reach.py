"""Which networks the gradient of each term reaches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from trials import tiny

from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.training.trainer import Trainer

TERMS = ("generator_recon", "generator_prior", "feature_recon", "feature_prior", "pixel", "kl")


def only(term: str, **changes: Any) -> dict[str, Any]:
    """All weights of the autoencoder's loss zero but one."""
    weight = {name: float(name == term) for name in TERMS}
    return {
        "loss__generator__recon": weight["generator_recon"],
        "loss__generator__prior": weight["generator_prior"],
        "loss__feature__recon": weight["feature_recon"],
        "loss__feature__prior": weight["feature_prior"],
        "loss__pixel__weight": weight["pixel"],
        "loss__kl": {"control": "fixed", "beta": weight["kl"]},
        **changes,
    }


def reached(module: torch.nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters())


@pytest.mark.parametrize(
    ("term", "changes", "encoder", "decoder"),
    [
        ("generator_recon", {"loss__generator__gradient": "decoder"}, False, True),
        ("generator_recon", {"loss__generator__gradient": "autoencoder"}, True, True),
        ("generator_prior", {}, False, True),
        ("generator_recon", {"loss__adversarial": "relativistic"}, False, True),
        (
            "generator_recon",
            {"loss__adversarial": "relativistic", "loss__generator__gradient": "autoencoder"},
            True,
            True,
        ),
        ("generator_prior", {"loss__adversarial": "relativistic"}, False, True),
        ("feature_recon", {"loss__feature__gradient": "autoencoder"}, True, True),
        ("feature_recon", {"loss__feature__gradient": "decoder"}, False, True),
        ("feature_prior", {}, False, True),
        ("pixel", {}, True, True),
        ("pixel", {"loss__pixel__kind": "log_mse"}, True, True),
        ("pixel", {"loss__generator__gradient": "autoencoder"}, True, True),
        ("kl", {}, True, False),
        ("kl", {"loss__kl": {"control": "fixed", "beta": 1.0, "estimator": "full_batch"}}, True, False),
    ],
)
def test_each_term_reaches_exactly_its_networks(
    frame_set: FrameSet, frame_features: FrameFeatures, term: str, changes: dict[str, Any], encoder: bool, decoder: bool
) -> None:
    trainer = Trainer(tiny(**only(term, **changes)), frame_set, frame_features)
    trainer.train_step()
    assert reached(trainer.autoencoder.encoder) == encoder
    assert reached(trainer.autoencoder.decoder) == decoder
