"""GAN terms that start late: what acts before, and what has curves."""

from typing import Any

import pytest
import torch
from trials import tiny

from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import Evaluation
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.problems import ConfigError
from vaegan_core.training.curves import LOSS_TERMS
from vaegan_core.training.resolve import at_full_cost
from vaegan_core.training.trainer import UPDATES, Trainer

NO_GAN = {
    "loss__discriminator": {"real": 0.0, "recon": 0.0, "prior": 0.0},
    "loss__generator": {"recon": 0.0, "prior": 0.0},
    "loss__feature": {"recon": 0.0, "prior": 0.0},
}
NORMS: dict[str, dict[str, Any]] = {"plain": {}, "batch norm": {"model__decoder__norm": "batch"}}


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("norm", NORMS)
def test_before_the_start_the_autoencoder_learns_as_if_there_were_no_gan(
    frame_set: FrameSet, frame_features: FrameFeatures, update: str, norm: str
) -> None:
    late, without = (
        Trainer(tiny(**changes, **NORMS[norm], train__update=update), frame_set, frame_features)
        for changes in ({"loss__start": 0.5}, NO_GAN)
    )
    start = [parameter.detach().clone() for parameter in late.autoencoder.parameters()]
    for _ in range(6):
        late.train_step()
        without.train_step()
    moved, expected = (
        torch.cat([(a - b).flatten() for a, b in zip(trainer.autoencoder.parameters(), start, strict=True)])
        for trainer in (late, without)
    )
    assert (moved - expected).norm() <= 1e-3 * expected.norm()
    assert not late.update.optimizers["discriminator"].state, "D does not train"
    late.train_step()
    assert late.update.optimizers["discriminator"].state


@pytest.mark.parametrize("update", UPDATES)
def test_terms_that_do_not_act_yet_have_no_curve(
    frame_set: FrameSet, frame_features: FrameFeatures, update: str
) -> None:
    """The GAN starts at step 4 of 12; the points are at 3, 6, 9 and 12."""
    evaluations: list[Evaluation] = []
    Trainer(tiny(loss__start=0.35, train__update=update), frame_set, frame_features).run(evaluations.append)
    assert [evaluation.outcome for evaluation in evaluations] == ["running", "completed"]

    def steps(key: str) -> list[int]:
        return [point.step for evaluation in evaluations for point in evaluation.points if point.key == key]

    always = {"train/kl", "train/pixel"}
    for term in LOSS_TERMS:
        assert steps(term) == ([3, 6, 9, 12] if term in always else [6, 9, 12]), term
    assert steps("train/discriminator") == [6, 9, 12]


def test_costs_are_measured_with_the_gan() -> None:
    config = tiny(loss__start=0.5)
    assert at_full_cost(config) == tiny()


def test_a_late_start_needs_a_pixel_loss() -> None:
    with pytest.raises(ConfigError, match=r"loss\.start: leaves only loss\.pixel .* but got 0\.5"):
        tiny(loss__start=0.5, loss__pixel__weight=0.0)
