"""Curve values become points: means over the steps between them, taken once."""

import math

import pytest
import torch
from trials import tiny

from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import AUC_PRIOR, SHARE_DISCRIMINATOR_LOSS, SHARE_PRIOR_GRADIENT, Evaluation
from vaegan_core.metrics.diagnoses import discriminator_saturated
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.training.curves import IMAGES_PER_SECOND, LOSS_TERMS, CurveLog, shares
from vaegan_core.training.trainer import Trainer


def test_the_curves_of_the_losses_keep_their_keys() -> None:
    assert LOSS_TERMS == (
        "train/kl",
        "train/discriminator_real",
        "train/discriminator_recon",
        "train/discriminator_prior",
        "train/generator_recon",
        "train/generator_prior",
        "train/feature_recon",
        "train/feature_prior",
        "train/pixel",
    )


def test_a_point_is_the_mean_over_the_steps_that_have_the_value() -> None:
    log = CurveLog(batch_size=8)
    for step in range(4):
        log.add_step({"a": torch.tensor(float(step)), "plain": 0.1 * step})
    log.pending[3]["rare"] = torch.tensor(5.0)
    assert log.flush(4) == ""
    points = {point.key: point for point in log.take_points()}
    assert {key: point.step for key, point in points.items()} == dict.fromkeys(points, 4)
    assert points["a"].value == 1.5
    assert points["plain"].value == pytest.approx(0.3), "of a number that is no tensor, the last"
    assert points["rare"].value == 5.0
    assert points[IMAGES_PER_SECOND].value > 0
    assert log.take_points() == ()
    assert log.flush(4) == "", "no step since then, no point"
    assert log.take_points() == ()


def test_the_first_value_that_is_not_finite_is_named_with_its_step() -> None:
    log = CurveLog(batch_size=8)
    for value in (1.0, math.nan, math.inf):
        log.add_step({"fine": torch.tensor(1.0), "train/kl": torch.tensor(value)})
    assert log.flush(12) == "train/kl is nan at step 11"
    assert log.take_points() == ()


def test_means_are_over_the_points_since_the_last_evaluation() -> None:
    log = CurveLog(batch_size=8)
    log.add_points(1, {"a": 1.0, "b": 4.0})
    log.add_points(2, {"a": 2.0})
    assert log.means() == {"a": 1.5, "b": 4.0}
    log.take_points()
    assert log.means() == {}


def test_shares_are_of_the_decoders_gradient_and_of_chance() -> None:
    means = {
        "train/discriminator": 9.0,
        "weighted/discriminator_real": 0.25,
        "weighted/discriminator_recon": 0.125,
        "weighted/discriminator_prior": 0.125,
        "weighted/r1": 8.5,
        "gradient/decoder/generator_recon": 1.0,
        "gradient/decoder/generator_prior": 2.0,
        "gradient/decoder/feature_prior": 1.0,
        "gradient/decoder/pixel": 4.0,
        "gradient/encoder/pixel": 100.0,
    }
    assert shares(means, chance_loss=2.0) == {SHARE_PRIOR_GRADIENT: 3 / 8, SHARE_DISCRIMINATOR_LOSS: 0.25}
    assert shares({"gradient/decoder/pixel": 1.0}, chance_loss=None) == {}
    assert shares({"gradient/decoder/pixel": 1.0}, chance_loss=2.0) == {}, "D does not train yet"


def test_a_saturated_discriminator_is_diagnosed_also_with_a_large_penalty() -> None:
    means = {"weighted/discriminator_real": 0.01, "weighted/discriminator_prior": 0.02, "weighted/r1": 5.0}
    means["train/discriminator"] = sum(means.values())
    metrics = {AUC_PRIOR: 1.0} | shares(means, chance_loss=2.0)
    assert discriminator_saturated([(step, metrics) for step in range(1, 11)]) is True


@pytest.mark.parametrize("update", ["joint", "simultaneous", "per_term", "per_term_stale"])
@pytest.mark.parametrize("adversarial", ["bce", "relativistic"])
def test_the_share_of_chance_is_the_same_in_every_scheme_with_a_penalty_and_without(
    frame_set: FrameSet, frame_features: FrameFeatures, update: str, adversarial: str
) -> None:
    """At the same weights and batch: no network moves."""
    found = []
    for scheme, r1 in (("joint", 0.0), (update, 1e4)):
        weights = {"r1": r1, "r1_every": 1}
        options = {"loss__adversarial": adversarial, "loss__discriminator": weights, "train__update": scheme}
        trainer = Trainer(tiny(**options, optimizer__autoencoder__lr=1e-30), frame_set, frame_features)
        trainer.train_step()
        trainer.curves.flush(1)
        found.append(shares(trainer.curves.means(), trainer.update.terms.chance_loss)[SHARE_DISCRIMINATOR_LOSS])
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_a_training_is_validated_at_the_steps_that_are_asked_for(
    frame_set: FrameSet, frame_features: FrameFeatures
) -> None:
    config = tiny(train__steps=7, evaluate__every=3, evaluate__also_at=[1, 4], train__log_every=2)
    evaluations: list[Evaluation] = []
    Trainer(config, frame_set, frame_features).run(evaluations.append)
    assert [evaluation.step for evaluation in evaluations] == [1, 3, 4, 6, 7]
