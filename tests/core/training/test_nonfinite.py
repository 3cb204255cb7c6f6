"""The first tensor that is not finite is named; and looking for it changes no number."""

from __future__ import annotations

import math

import pytest
import torch
from trials import tiny

from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import Evaluation
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.training.nonfinite import NonFinite, stopping_at_nonfinite
from vaegan_core.training.trainer import Trainer

UPDATES = ("joint", "simultaneous", "per_term", "per_term_stale")


def first_of(trainer: Trainer) -> NonFinite:
    with stopping_at_nonfinite(trainer), pytest.raises(NonFinite) as found:
        trainer.run(lambda _: None)
    return found.value


@pytest.mark.parametrize("update", UPDATES)
def test_looking_changes_no_number_and_leaves_nothing_behind(
    frame_set: FrameSet, frame_features: FrameFeatures, update: str
) -> None:
    spectral = {"model__discriminator__spectral_norm": True, "loss__discriminator__r1": 1.0}
    config = tiny(train__update=update, train__steps=6, **spectral)
    points = []
    for watched in (False, True):
        trainer, reports = Trainer(config, frame_set, frame_features), list[Evaluation]()
        if watched:
            kl = trainer.update.kl
            with stopping_at_nonfinite(trainer):
                trainer.run(reports.append, until=3)
                assert (trainer.step, reports) == (3, []), "no evaluation that it would not have anyway"
                trainer.run(reports.append)
            assert trainer.update.kl is kl
            shadowed = vars(trainer.update.terms).keys() & {"images", "discriminator"}
            assert not shadowed
            assert "penalties" not in vars(trainer.update)
            assert not any(module._forward_hooks for module in trainer.autoencoder.modules())
        else:
            trainer.run(reports.append)
        points.append([(p.key, p.step, p.value) for p in reports[-1].points if not p.key.startswith("speed/")])
    assert points[0] == points[1]
    assert {step for _, step, _ in points[0]} == {3, 6}


def test_an_activation_is_named_by_its_module_with_what_came_before(
    frame_set: FrameSet, frame_features: FrameFeatures
) -> None:
    trainer = Trainer(tiny(), frame_set, frame_features)
    trainer.run(lambda _: None, until=4)
    with torch.no_grad():
        trainer.autoencoder.decoder.linear.bias[3] = math.inf
    found = first_of(trainer)
    assert (found.step, found.tensor) == (5, "activation of decoder.linear")
    assert (found.count, found.size) == (8, 8 * trainer.autoencoder.decoder.linear.out_features)
    assert found.before == "input of decoder"
    assert found.range_before is not None
    assert all(map(math.isfinite, found.range_before))
    assert "right before it, input of decoder was in [" in str(found)


def test_a_gradient_is_named_by_its_parameter(frame_set: FrameSet, frame_features: FrameFeatures) -> None:
    trainer = Trainer(tiny(), frame_set, frame_features)
    weight = trainer.autoencoder.encoder.posterior.weight
    weight.register_hook(lambda gradient: gradient * math.inf if trainer.step == 2 else gradient)
    found = first_of(trainer)
    assert (found.step, found.tensor) == (3, "gradient of encoder.posterior.weight")
    assert found.at_last is not None, "it was finite a step before"


def test_a_loss_term_is_named_although_everything_it_came_from_is_finite(
    frame_set: FrameSet, frame_features: FrameFeatures
) -> None:
    trainer = Trainer(tiny(), frame_set, frame_features)
    with torch.no_grad():
        trainer.autoencoder.encoder.posterior.bias[8:] = 100.0  # log variances: exp(100) is more than float32 holds
    found = first_of(trainer)
    assert (found.step, found.tensor) == (1, "loss term kl")


def test_a_step_that_breaks_a_parameter_is_named(frame_set: FrameSet, frame_features: FrameFeatures) -> None:
    trainer = Trainer(tiny(optimizer__autoencoder__lr=1e38, train__steps=50), frame_set, frame_features)
    found = first_of(trainer)
    again = Trainer(tiny(optimizer__autoencoder__lr=1e38, train__steps=50), frame_set, frame_features)
    reports: list[Evaluation] = []
    again.run(reports.append)
    assert reports[-1].outcome == "diverged"
    assert found.step <= reports[-1].step
    assert found.count
