"""The loss of one configuration as named terms: what each is, what it weighs, which networks its gradient reaches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vaegan_core.config.loss import LossConfig
from vaegan_core.config.training import BalanceConfig
from vaegan_core.losses.functional import (
    ADVERSARIAL_LOSSES,
    bce_chance_loss,
    feature_matching_loss,
    feature_scale,
    moment_matching_loss,
    pixel_loss,
)

REAL, RECON, PRIOR = "real", "recon", "prior"
"""The kinds of image that the discriminator sees: frames, reconstructions and prior samples."""


@dataclass(frozen=True)
class Term:
    """One term of the loss: its kind, and the kind of image it is computed from (None: from no image)."""

    kind: str
    image: str | None = None

    def __str__(self) -> str:
        """The name in curve keys: `generator_recon`, `pixel`, `kl`."""
        return self.kind if self.image is None or self.kind == "pixel" else f"{self.kind}_{self.image}"


DISCRIMINATOR_TERMS = tuple(Term("discriminator", image) for image in (REAL, RECON, PRIOR))
GENERATOR_TERMS = tuple(Term("generator", image) for image in (RECON, PRIOR))
FEATURE_TERMS = tuple(Term("feature", image) for image in (RECON, PRIOR))
PIXEL = Term("pixel", RECON)
IMAGE_TERMS = (*GENERATOR_TERMS, *FEATURE_TERMS, PIXEL)
"""Terms of the autoencoder's loss that are functions of images; the KL is not."""
KL, KL_BATCH = Term("kl"), Term("kl_batch")
"""The KL of each sample, and that of moments over the batch. The KL's place in the loss is `KL`, whichever it is."""
R1, R2 = Term("r1"), Term("r2")
"""Gradient penalties on real and on fake images, which belong to the discriminator's loss."""

TermValues = dict[Term, Tensor]
"""Scalars by term: raw, or multiplied by their weights."""


@dataclass(frozen=True)
class Verdict:
    """The discriminator's output for one kind of image: logits, as `heads_of` reads them, and features [n, c, h, w]."""

    logits: Tensor
    features: Tensor


class LossTerms:
    """Raw terms, their weights and the reach of their gradients. Holds no networks and no state."""

    def __init__(self, loss: LossConfig, variance: float) -> None:
        """`variance`: Var x of the training frames, by which scale-free pixel losses are divided."""
        self.loss = loss
        self.variance = variance if loss.pixel.scale_free else None
        self.adversarial = ADVERSARIAL_LOSSES[loss.adversarial]
        self.relativistic = loss.adversarial == "relativistic"
        self.weights = {
            Term("discriminator", REAL): loss.discriminator.real,
            Term("discriminator", RECON): loss.discriminator.recon,
            Term("discriminator", PRIOR): loss.discriminator.prior,
            Term("generator", RECON): loss.generator.recon,
            Term("generator", PRIOR): loss.generator.prior,
            Term("feature", RECON): loss.feature.recon,
            Term("feature", PRIOR): loss.feature.prior,
            PIXEL: loss.pixel.weight,
        }
        gradients = {Term("generator", RECON): loss.generator.gradient, Term("feature", RECON): loss.feature.gradient}
        self.decoder_only = frozenset(term for term, target in gradients.items() if target == "decoder")
        """Terms of reconstructions whose gradient must not reach the encoder; that of prior samples never does."""

    @property
    def chance_loss(self) -> float | None:
        """The discriminator's loss when it cannot tell real from fake; None where it is not a constant (neither BCE nor
        relativistic, which has log 2 for every pair)."""
        weights = self.loss.discriminator
        fake = weights.recon + weights.prior
        heads = self.loss.heads.whole + self.loss.heads.patch
        if self.relativistic and fake:
            return heads * fake * math.log(2.0)
        if self.loss.adversarial != "bce" or not weights.real or not fake:
            return None
        return heads * bce_chance_loss(weights.real, fake)

    def reaches_encoder(self, term: Term) -> bool:
        """Whether the gradient of an image term goes through the decoder to the encoder."""
        return term.image != PRIOR and term not in self.decoder_only

    # --- Heads of the discriminator -----------------------------------------------------------------------------------

    def over_heads(self, loss: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
        """Sum over D's heads of weight times `loss` of that head's logits."""
        whole, patch = heads_of(logits)
        total = self.loss.heads.whole * loss(whole)
        return total if patch is None else total + self.loss.heads.patch * loss(patch)

    def output(self, logits: Tensor) -> Tensor:
        """D as one function of an image, [n], that R1 and R2 differentiate: sum over heads of weight times the mean."""
        whole, patch = heads_of(logits)
        total = self.loss.heads.whole * whole
        return total if patch is None else total + self.loss.heads.patch * patch.mean(dim=1)

    def score(self, logits: Tensor) -> Tensor:
        """The logit of each image, [n], that AUC and probabilities are of: the whole head's, or, where that weighs
        nothing, the mean over patches."""
        whole, patch = heads_of(logits)
        return whole if patch is None or self.loss.heads.whole else patch.mean(dim=1)

    # --- Terms --------------------------------------------------------------------------------------------------------

    def weighted(self, raw: Mapping[Term, Tensor]) -> TermValues:
        """Each term times its weight. A term of weight 0 carries no gradient."""
        return {
            term: self.weights[term] * (value if self.weights[term] else value.detach()) for term, value in raw.items()
        }

    def relative(self, logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits, of any shape, as adversarial losses take them: D's own, by kind of image.

        Relativistic: D(fake) - D(real), for fake image i and frame i of the batch (Jolicoeur-Martineau 2018, eq. 3-4).
        A reconstruction is paired with its own frame, a prior sample thereby with a random one; real images have no
        logits, and no term, of their own.
        """
        if not self.relativistic:
            return dict(logits)
        return {image: x - logits[REAL] for image, x in logits.items() if image != REAL}

    def kinds_seen(self, terms: Iterable[Term]) -> list[str]:
        """Kinds of image that the discriminator must see to compute these terms, sorted."""
        kinds = set()
        for term in terms:
            if term == PIXEL or (self.relativistic and term == Term("discriminator", REAL)):
                continue
            kinds.add(term.image)
            if term.kind == "feature" or self.relativistic:
                kinds.add(REAL)
        return sorted(kind for kind in kinds if kind is not None)

    def discriminator(self, logits: Mapping[str, Tensor]) -> TermValues:
        """Raw terms of the discriminator's loss, from logits by kind of image; only of the kinds given."""
        return {
            Term("discriminator", image): self.over_heads(
                self.adversarial.real if image == REAL else self.adversarial.fake, x
            )
            for image, x in self.relative(logits).items()
        }

    def images(
        self, terms: Iterable[Term], x: Tensor, x_recon: Tensor | None, verdicts: Mapping[str, Verdict]
    ) -> TermValues:
        """Raw values of these image terms. Only the images and verdicts that they use need to be given."""
        logits = {image: verdict.logits for image, verdict in verdicts.items()}
        if REAL in logits:
            logits[REAL] = logits[REAL].detach()  # or the path back through D's pass would be run for nothing
        logits = self.relative(logits)
        raw = {}
        for term in terms:
            if term.kind == "pixel":
                assert x_recon is not None
                raw[term] = pixel_loss(x_recon, x, self.loss.pixel.kind, self.variance)
                continue
            assert term.image is not None
            if term.kind == "generator":
                raw[term] = self.over_heads(self.adversarial.generator, logits[term.image])
            else:
                raw[term] = self._feature(term.image, verdicts)
        return raw

    def _feature(self, image: str, verdicts: Mapping[str, Verdict]) -> Tensor:
        real = verdicts[REAL].features.detach()
        scale = feature_scale(real, self.loss.feature.scale_free)
        if image == PRIOR and self.loss.feature.prior_matching == "moments":
            return moment_matching_loss(verdicts[image].features, real, scale)
        return feature_matching_loss(verdicts[image].features, real, scale)


def heads_of(logits: Tensor) -> tuple[Tensor, Tensor | None]:
    """D's logits [n] or [n, 1 + p] as those of the whole images, [n], and of their patches, [n, p], if D has a head."""
    return (logits, None) if logits.dim() == 1 else (logits[:, 0], logits[:, 1:])


def resting(balance: BalanceConfig, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """(discriminator rests, decoder rests), each 1.0 or 0.0 on the device, from D's raw losses on real and fake."""
    low, high = balance.equilibrium - balance.margin, balance.equilibrium + balance.margin
    discriminator = (real < low) | (fake < low)
    decoder = (real > high) | (fake > high)
    both = discriminator & decoder
    return (discriminator & ~both).float(), (decoder & ~both).float()


def fake_loss(loss: LossConfig, raw: Mapping[Term, Tensor]) -> Tensor:
    """D's raw loss on fake images: that of reconstructions and of prior samples, averaged by their weights."""
    weights = loss.discriminator
    recon, prior = (raw[Term("discriminator", image)] for image in (RECON, PRIOR))
    return (weights.recon * recon + weights.prior * prior) / max(
        weights.recon + weights.prior, torch.finfo(torch.float32).tiny
    )
