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


@pytest.mark.parametrize("update", ["joint", "simultaneous", "per_term", "per_term_stale"])
def test_prior_samples_reach_no_encoder_through_the_statistics_of_a_common_batch(
    frame_set: FrameSet, frame_features: FrameFeatures, update: str
) -> None:
    gradients: dict[tuple[float, str], torch.Tensor] = {}
    for weight in (0.0, 1.0):
        changes = only("feature_recon", model__decoder__norm="batch", train__update=update)
        trainer = Trainer(tiny(**changes | {"loss__feature__prior": weight}), frame_set, frame_features)

        def keep(network: str, rests: Any = None, *, weight: float = weight, update: Any = trainer.update) -> None:  # noqa: ARG001
            found = [torch.zeros_like(p) if p.grad is None else p.grad for p in update.parameters(network)]
            gradients.setdefault((weight, network), torch.cat([grad.flatten() for grad in found]))

        trainer.update.adam_step = keep
        trainer.train_step()
    differ = {
        network: float((gradients[1.0, network] - gradients[0.0, network]).norm() / gradients[0.0, network].norm())
        for network in ("encoder", "decoder")
    }
    assert differ["encoder"] < 1e-4
    assert differ["decoder"] > 0.1
