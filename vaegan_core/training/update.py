"""How a training step updates the networks: from which passes the gradients come, and who steps when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import AdamW

from vaegan_core.config.trial import TrialConfig
from vaegan_core.losses.augment import Augmentation
from vaegan_core.losses.functional import gradient_penalty
from vaegan_core.losses.kl_control import KLTerm
from vaegan_core.losses.terms import KL, PIXEL, PRIOR, R1, R2, REAL, RECON, LossTerms, Term, TermValues, Verdict
from vaegan_core.model.modes import frozen, held_statistics, mixes_batch
from vaegan_core.model.networks import Autoencoder, Discriminator, Posterior
from vaegan_core.training.curves import DISCRIMINATOR_TOTAL, Values, autoencoder_curves, gradient_key, term_curves
from vaegan_core.training.gradients import gradient_norm

ENCODER, DECODER, DISCRIMINATOR = "encoder", "decoder", "discriminator"


@dataclass(frozen=True)
class Draw:
    """One batch: images [n, 3, H, W] in [-1, 1], posterior noise and prior latents, both [n, latent_dim]."""

    x: Tensor
    noise: Tensor
    z_prior: Tensor


@dataclass(frozen=True)
class Encoded:
    """A batch after the autoencoder, with the graph that takes gradients at its images back to either network."""

    posterior: Posterior
    z: Tensor
    x_recon: Tensor
    x_prior: Tensor

    @property
    def images(self) -> list[Tensor]:
        """Reconstructions and prior samples, both [n, 3, H, W]."""
        return [self.x_recon, self.x_prior]


class Update(ABC):
    """One way to turn losses into optimizer steps, with one Adam per network (see vaegan_core/README.md)."""

    def __init__(
        self,
        config: TrialConfig,
        autoencoder: Autoencoder,
        discriminator: Discriminator,
        kl: KLTerm,
        variance: float,
        generator: torch.Generator,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        """`variance`: Var x of the training frames; `generator`: the trial's random numbers, for augmentation."""
        self.config = config
        self.terms = LossTerms(config.loss, variance)
        self.kl = kl
        self.autocast = autocast
        self.encoder, self.decoder, self.discriminator = autoencoder.encoder, autoencoder.decoder, discriminator
        self.networks: dict[str, nn.Module] = {
            ENCODER: self.encoder,
            DECODER: self.decoder,
            DISCRIMINATOR: discriminator,
        }
        self.optimizers = {name: _adam(network, config, name) for name, network in self.networks.items()}
        self._generator = generator

    @abstractmethod
    def step(self, draws: Sequence[Draw], step: int, measure: bool) -> Values:
        """Step number `step` (from 0): the discriminator on every draw, the autoencoder on the last.

        `measure` adds the norm of each term's gradient to the curves; it changes nothing else.
        """

    # --- Before the GAN starts ----------------------------------------------------------------------------------------

    def gan_acts(self, step: int) -> bool:
        """Whether step number `step` (from 0) has discriminator, generator and feature terms; only pixels and KL act
        before `loss.start`."""
        return step >= self.config.loss.start * self.config.train.steps

    def terms_before_gan(self, draw: Draw, step: int, measure: bool) -> tuple[TermValues, Values]:
        """Weighted terms of pixels and KL, and curve values, without prior samples and discriminator."""
        encoded = self.encode_kinds({RECON}, draw)
        raw = self.terms.images([PIXEL], draw.x, encoded.x_recon, {})
        weighted = self.terms.weighted(raw)
        weighted[KL], kl = self.kl(encoded.posterior, encoded.z, step)
        values = self.gradient_norms(weighted, encoded) if measure else {}
        return weighted, values | autoencoder_curves(raw | kl, weighted, encoded.posterior)

    # --- Passes -------------------------------------------------------------------------------------------------------

    def encode(self, draw: Draw) -> Encoded:
        """One encoder pass, and one decoder pass per kind of latent."""
        with self.autocast():
            posterior = self.encoder(draw.x)
            z = posterior.sample(draw.noise)
            return Encoded(posterior, z, *self.decode(z, draw.z_prior))

    def encode_without_gradient(self, draw: Draw) -> Encoded:
        """The same for the discriminator alone: without a graph, and leaving the autoencoder's statistics alone."""
        with torch.no_grad(), held_statistics(self.encoder), held_statistics(self.decoder):
            return self.encode(draw)

    def encode_kinds(self, kinds: Collection[str | None], draw: Draw) -> Encoded:
        """Decodes only these kinds of image; the other field holds a placeholder that callers must not read.

        With batch norm in the decoder both kinds are decoded, as one batch. Prior samples alone need no encoder pass.
        """
        if mixes_batch(self.decoder):
            return self.encode(draw)
        with self.autocast():
            posterior = self.encoder(draw.x) if RECON in kinds else Posterior(draw.z_prior, None)
            z = posterior.sample(draw.noise)
            x_recon = self.decoder(z) if RECON in kinds else draw.x
            x_prior = self.decoder(draw.z_prior) if PRIOR in kinds else draw.x
        return Encoded(posterior, z, x_recon, x_prior)

    def decode(self, z: Tensor, z_prior: Tensor) -> tuple[Tensor, Tensor]:
        """Images of both kinds of latent. With batch norm they share one batch: in validation the decoder has one set
        of statistics for both, and it must be the one it was trained with."""
        if mixes_batch(self.decoder):
            x_recon, x_prior = self.decoder(torch.cat([z, z_prior])).chunk(2)
            return x_recon, x_prior
        with parametrize.cached():
            return self.decoder(z), self.decoder(z_prior)

    def judge(self, images: Mapping[str, Tensor], augment: Callable[[Tensor], Tensor]) -> dict[str, Verdict]:
        """One discriminator pass over all kinds of image.

        With batch norm each kind is a batch of its own, or D could tell the kinds apart by the rest of the batch.
        """
        seen = {kind: augment(x) for kind, x in images.items()}
        with self.autocast(), parametrize.cached():
            if mixes_batch(self.discriminator):
                return {kind: Verdict(*self.discriminator(x)) for kind, x in seen.items()}
            logits, features = self.discriminator(torch.cat(list(seen.values())))
            parts = zip(logits.chunk(len(seen)), features.chunk(len(seen)), strict=True)
            return {kind: Verdict(*part) for kind, part in zip(seen, parts, strict=True)}

    def augmentation(self, n: int) -> Callable[[Tensor], Tensor]:
        """The configured augmentation for `n` images, newly drawn."""
        policy = self.config.loss.discriminator.augment
        return unchanged if policy == "none" else Augmentation(policy, n, self._generator)

    # --- Discriminator ------------------------------------------------------------------------------------------------

    def penalized(self, step: int) -> dict[str, float]:
        """Kinds of image that a penalty is due on in this step, with their shares in it: real images are all of R1,
        fake ones have shares in R2 like their weights in the discriminator's loss."""
        weights = self.config.loss.discriminator
        fake = {RECON: weights.recon, PRIOR: weights.prior} if weights.r2 else {}
        shares = {kind: weight / sum(fake.values()) for kind, weight in fake.items() if weight}
        if weights.r1:
            shares[REAL] = 1.0
        return {} if step % weights.r1_every else shares

    def penalties(self, images: Mapping[str, Tensor], step: int) -> TermValues:
        """R1 and R2 where they are due in this step: in float32 and eager, because their gradient is differentiated."""
        raw: TermValues = {}
        with held_statistics(self.discriminator):
            for kind, share in self.penalized(step).items():
                term = R1 if kind == REAL else R2
                penalty = share * gradient_penalty(self._output, images[kind])
                raw[term] = raw[term] + penalty if term in raw else penalty
        return raw

    def _output(self, x: Tensor) -> Tensor:
        """D as one function of an image, [n], run eagerly."""
        return self.terms.output(self.discriminator.forward(x)[0])

    def weighted_penalties(self, penalties: TermValues) -> TermValues:
        """The penalties as they enter the loss: times their weights, and times the steps since the one before."""
        weights = self.config.loss.discriminator
        gamma = {R1: weights.r1, R2: weights.r2}
        return {term: gamma[term] * weights.r1_every * penalty for term, penalty in penalties.items()}

    def discriminator_loss(self, raw: TermValues, penalties: TermValues) -> tuple[Tensor, Values]:
        """The weighted sum of raw terms and penalties, with its curve values."""
        weighted = self.terms.weighted(raw) | self.weighted_penalties(penalties)
        loss = torch.stack(list(weighted.values())).sum()
        return loss, {DISCRIMINATOR_TOTAL: loss.detach()} | term_curves(raw | penalties, weighted)

    # --- Autoencoder --------------------------------------------------------------------------------------------------

    def image_terms(
        self, terms: Iterable[Term], x: Tensor, images: Mapping[str, Tensor], augment: Callable[[Tensor], Tensor]
    ) -> TermValues:
        """Raw values of these image terms, with the discriminator frozen. A term of weight 0 takes no gradient."""
        terms = list(terms)
        verdicts: dict[str, Verdict] = {}
        with frozen(self.discriminator), parametrize.cached():
            for kind in self.terms.kinds_seen(terms):
                trains = any(self.terms.weights[term] for term in terms if term.image == kind and term != PIXEL)
                with torch.set_grad_enabled(kind != REAL and trains):
                    verdicts |= self.judge({kind: x if kind == REAL else images[kind]}, augment)
        return self.terms.images(terms, x, images.get(RECON), verdicts)

    def gradient_norms(self, weighted: Mapping[Term, Tensor], encoded: Encoded) -> Values:
        """Norm of each weighted term's gradient at the decoder's output (both kinds of image) and at the encoder's."""
        latent = [x for x in (encoded.posterior.mean, encoded.posterior.logvar) if x is not None and x.requires_grad]
        values: Values = {}
        for term, value in weighted.items():
            if not value.requires_grad:
                continue
            if term == KL:
                grads = torch.autograd.grad(value, latent, retain_graph=True, allow_unused=True)
                values[gradient_key(ENCODER, KL)] = gradient_norm(grads)
                continue
            images = [x for x in encoded.images if x.requires_grad]
            grads = torch.autograd.grad(value, images, retain_graph=True, allow_unused=True)
            values[gradient_key(DECODER, term)] = gradient_norm(grads)
            if self.terms.reaches_encoder(term):
                grads = torch.autograd.grad(encoded.x_recon, latent, grads[0], retain_graph=True)
                values[gradient_key(ENCODER, term)] = gradient_norm(grads)
        return values

    # --- Steps --------------------------------------------------------------------------------------------------------

    def targets(self, term: Term) -> tuple[str, ...]:
        """Networks that the gradient of a term goes to."""
        if term.kind == "discriminator":
            return (DISCRIMINATOR,)
        if term == KL:
            return (ENCODER,)
        return (ENCODER, DECODER) if self.terms.reaches_encoder(term) else (DECODER,)

    def parameters(self, *networks: str) -> list[nn.Parameter]:
        """All parameters of these networks, in order."""
        return [parameter for name in networks for parameter in self.networks[name].parameters()]

    def adam_step(self, network: str, rests: Tensor | None = None) -> None:
        """A step from the gradients in `.grad`; no step where `rests` is 1 (a scalar on the device)."""
        optimizer: Any = self.optimizers[network]
        if rests is not None:
            optimizer.found_inf = rests
        optimizer.step()
        if rests is not None:
            del optimizer.found_inf

    def zero_grad(self, *networks: str) -> None:
        """Drops the gradients of these networks."""
        for name in networks:
            self.optimizers[name].zero_grad(set_to_none=True)


def unchanged(images: Tensor) -> Tensor:
    """No augmentation."""
    return images


def _adam(network: nn.Module, config: TrialConfig, name: str) -> AdamW:
    optimizer = config.optimizer
    settings = optimizer.discriminator if name == DISCRIMINATOR else optimizer.autoencoder
    lr = optimizer.autoencoder.lr * (optimizer.discriminator.lr_ratio if name == DISCRIMINATOR else 1.0)
    betas = (settings.beta1, settings.beta2)
    return AdamW(network.parameters(), lr=lr, betas=betas, weight_decay=settings.weight_decay, fused=True)
