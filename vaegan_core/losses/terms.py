"""The loss of one configuration as named terms: what each is, what it weighs, and how far its gradient goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vaegan_core.config import BalanceConfig, LossConfig
from vaegan_core.losses.functional import (
    ADVERSARIAL_LOSSES,
    bce_chance_loss,
    feature_matching_loss,
    feature_scale,
    moment_matching_loss,
    pixel_loss,
)

REAL, RECON, PRIOR = "real", "recon", "prior"
"""The kinds of image that the discriminator sees."""
DISCRIMINATOR_TERMS = ("discriminator_real", "discriminator_recon", "discriminator_prior")
GENERATOR_TERMS = ("generator_recon", "generator_prior")
IMAGE_TERMS = (*GENERATOR_TERMS, "feature_recon", "feature_prior", "pixel")
"""Terms of the autoencoder's loss that are functions of images; the KL is not."""


@dataclass(frozen=True)
class Judged:
    """What the discriminator says of a kind of image: logits [n] and features [n, c, h, w]."""

    logits: Tensor
    features: Tensor


class LossTerms:
    """Raw terms, their weights and the reach of their gradients. No networks, no state."""

    def __init__(self, loss: LossConfig, variance: float) -> None:
        """`variance`: Var x of the training frames, by which scale-free pixel losses are divided."""
        self.loss = loss
        self.variance = variance if loss.pixel.scale_free else None
        self.adversarial = ADVERSARIAL_LOSSES[loss.adversarial]
        self.weights = {
            "discriminator_real": loss.discriminator.real,
            "discriminator_recon": loss.discriminator.recon,
            "discriminator_prior": loss.discriminator.prior,
            "generator_recon": loss.generator.recon,
            "generator_prior": loss.generator.prior,
            "feature_recon": loss.feature.recon,
            "feature_prior": loss.feature.prior,
            "pixel": loss.pixel.weight,
        }
        targets = {"generator_recon": loss.generator.gradient, "feature_recon": loss.feature.gradient}
        self.stops_at_decoder = frozenset(name for name, target in targets.items() if target == "decoder")
        """Terms of reconstructions whose gradient must not reach the encoder; prior samples' never does."""

    @property
    def chance_loss(self) -> float | None:
        """The discriminator's loss when it can tell nothing apart; None where that is no constant (not BCE)."""
        weights = self.loss.discriminator
        fake = weights.recon + weights.prior
        if self.loss.adversarial != "bce" or not weights.real or not fake:
            return None
        return bce_chance_loss(weights.real, fake)

    def reaches_encoder(self, term: str) -> bool:
        return not term.endswith("_prior") and term not in self.stops_at_decoder

    def weighted(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A term of weight 0 carries no gradient."""
        return {
            name: self.weights[name] * (term if self.weights[name] else term.detach()) for name, term in raw.items()
        }

    def discriminator(self, logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Raw terms of the discriminator's loss from logits by kind of image, for the kinds given."""
        return {
            f"discriminator_{kind}": self.adversarial.real(each) if kind == REAL else self.adversarial.fake(each)
            for kind, each in logits.items()
        }

    def images(
        self, names: Iterable[str], x: Tensor, x_recon: Tensor | None, judged: Mapping[str, Judged]
    ) -> dict[str, Tensor]:
        """Raw terms of the autoencoder's loss called `names`; of images and judgements, those that they need."""
        raw = {}
        for name in names:
            term, _, kind = name.partition("_")
            if term == "generator":
                raw[name] = self.adversarial.generator(judged[kind].logits)
            elif term == "feature":
                raw[name] = self._feature(kind, judged)
            else:
                assert x_recon is not None
                raw[name] = pixel_loss(x_recon, x, self.loss.pixel.kind, self.variance)
        return raw

    def _feature(self, kind: str, judged: Mapping[str, Judged]) -> Tensor:
        real = judged[REAL].features.detach()
        scale = feature_scale(real, self.loss.feature.scale_free)
        if kind == PRIOR and self.loss.feature.prior_matching == "moments":
            return moment_matching_loss(judged[kind].features, real, scale)
        return feature_matching_loss(judged[kind].features, real, scale)

    def kinds_seen(self, names: Iterable[str]) -> set[str]:
        """Kinds of image that the discriminator must see for these terms of the autoencoder's loss."""
        terms = [name.split("_") for name in names if name != "pixel"]
        return {kind for _, kind in terms} | ({REAL} if any(term == "feature" for term, _ in terms) else set())


def resting(balance: BalanceConfig, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """(discriminator rests, decoder rests), each 1.0 or 0.0 on the device, from D's raw losses on real and fake."""
    low, high = balance.equilibrium - balance.margin, balance.equilibrium + balance.margin
    discriminator = (real < low) | (fake < low)
    decoder = (real > high) | (fake > high)
    both = discriminator & decoder
    return (discriminator & ~both).float(), (decoder & ~both).float()


def fake_loss(loss: LossConfig, raw: Mapping[str, Tensor]) -> Tensor:
    """D's raw loss on fake images: of reconstructions and prior samples, averaged by their weights."""
    weights = loss.discriminator
    total = weights.recon * raw["discriminator_recon"] + weights.prior * raw["discriminator_prior"]
    return total / max(weights.recon + weights.prior, torch.finfo(torch.float32).tiny)
