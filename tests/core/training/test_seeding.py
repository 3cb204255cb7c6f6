"""Random streams of a training: one for all networks, or one for each, so that trials of one seed pair up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from trials import tiny

from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.training.trainer import Trainer


@pytest.mark.parametrize("seeding", ["joint", "separate"])
def test_separate_streams_pair_trials_whose_networks_differ(
    seeding: str, frame_set: FrameSet, frame_features: FrameFeatures
) -> None:
    """Spectral norm draws its vectors, so that with one stream all that is built after the encoder would differ."""
    changed = tiny(train__seeding=seeding, model__encoder={"spectral_norm": True})
    plain, other = (Trainer(config, frame_set, frame_features) for config in (tiny(train__seeding=seeding), changed))
    for one, same in (
        (plain.autoencoder.decoder, other.autoencoder.decoder),
        (plain.discriminator, other.discriminator),
    ):
        pairs = zip(one.parameters(), same.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == (seeding == "separate")


def test_separate_noise_does_not_depend_on_what_was_drawn_before(
    frame_set: FrameSet, frame_features: FrameFeatures
) -> None:
    augmented = {"train__seeding": "separate", "loss__discriminator__augment": "all"}
    trainers = [
        Trainer(tiny(**more), frame_set, frame_features) for more in ({"train__seeding": "separate"}, augmented)
    ]
    draws: list[Any] = []
    for trainer in trainers:
        step = trainer.update.step
        trainer.update.step = lambda drawn, *more, step=step: draws.append(drawn[0]) or step(drawn, *more)
        with trainer.runtime():
            trainer.train_step()
            trainer.train_step()
    assert torch.equal(draws[1].z_prior, draws[3].z_prior)
    assert not torch.equal(draws[0].z_prior, draws[1].z_prior)


def test_mirroring_changes_images_and_nothing_else_that_is_drawn(
    frame_set: FrameSet, frame_features: FrameFeatures
) -> None:
    plain, mirrored = (
        Trainer(tiny(train__horizontal_flip=flip), frame_set, frame_features)._draw(1) for flip in (False, True)
    )
    assert torch.equal(plain.noise, mirrored.noise)
    assert torch.equal(plain.z_prior, mirrored.z_prior)
    same = [torch.equal(a, b) for a, b in zip(plain.x, mirrored.x, strict=True)]
    assert not all(same)
    for image, other, unchanged in zip(plain.x, mirrored.x, same, strict=True):
        assert unchanged or torch.equal(image.flip(2), other)
