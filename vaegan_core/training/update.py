"""How a training step updates the networks: from which passes the gradients come, and who steps when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import AdamW

from vaegan_core.config import TrialConfig
from vaegan_core.losses.augment import Augmentation
from vaegan_core.losses.functional import r1_penalty
from vaegan_core.losses.kl_control import KLTerm
from vaegan_core.losses.terms import (
    DISCRIMINATOR_TERMS,
    REAL,
    RECON,
    Judged,
    LossTerms,
)
from vaegan_core.model.modes import frozen, held_statistics, mixes_batch
from vaegan_core.model.networks import Autoencoder, Discriminator, Posterior
from vaegan_core.training.curves import Values, curves
from vaegan_core.training.gradients import gradient_norm

ENCODER, DECODER, DISCRIMINATOR = "encoder", "decoder", "discriminator"


@dataclass(frozen=True)
class Draw:
    """One batch: images [n, 3, H, W], posterior noise and prior latents [n, latent_dim]."""

    x: Tensor
    noise: Tensor
    z_prior: Tensor


@dataclass(frozen=True)
class Coded:
    """A batch sent through the autoencoder. With it, gradients of images can be taken on to either network."""

    posterior: Posterior
    z: Tensor
    x_recon: Tensor
    x_prior: Tensor

    @property
    def images(self) -> list[Tensor]:
        return [self.x_recon, self.x_prior]


class Update(ABC):
    """One way to turn losses into optimizer steps, with one Adam for each network (DESIGN 4.2)."""

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

        `measure` adds the norm of each term's gradient; it changes nothing else.
        """

    # --- Passes -------------------------------------------------------------------------------------------------------

    def code(self, draw: Draw) -> Coded:
        """One encoder pass and one decoder pass per kind of latent."""
        with self.autocast():
            posterior = self.encoder(draw.x)
            z = posterior.sample(draw.noise)
            return Coded(posterior, z, *self.decode(z, draw.z_prior))

    def decode(self, z: Tensor, z_prior: Tensor) -> tuple[Tensor, Tensor]:
        """Images of both kinds of latent. With batch norm they share one batch: in validation the decoder has one set
        of statistics for both, and it must be the one it was trained with."""
        if mixes_batch(self.decoder):
            x_recon, x_prior = self.decoder(torch.cat([z, z_prior])).chunk(2)
            return x_recon, x_prior
        with parametrize.cached():
            return self.decoder(z), self.decoder(z_prior)

    def judge(self, images: Mapping[str, Tensor], augment: Callable[[Tensor], Tensor]) -> dict[str, Judged]:
        """One discriminator pass over all kinds of image.

        With batch norm each kind is a batch of its own, else D could tell the kinds apart by their company.
        """
        seen = {kind: augment(each) for kind, each in images.items()}
        with self.autocast(), parametrize.cached():
            if mixes_batch(self.discriminator):
                return {kind: Judged(*self.discriminator(each)) for kind, each in seen.items()}
            logits, features = self.discriminator(torch.cat(list(seen.values())))
            parts = zip(logits.chunk(len(seen)), features.chunk(len(seen)), strict=True)
            return {kind: Judged(*part) for kind, part in zip(seen, parts, strict=True)}

    def augmentation(self, n: int) -> Callable[[Tensor], Tensor]:
        policy = self.config.loss.discriminator.augment
        return unchanged if policy == "none" else Augmentation(policy, n, self._generator)

    # --- Discriminator ------------------------------------------------------------------------------------------------

    def penalty(self, x: Tensor, step: int) -> Tensor | None:
        """The R1 penalty where it is due in this step: in float32 and eager, for its gradient is differentiated."""
        own = self.config.loss.discriminator
        if not own.r1 or step % own.r1_every:
            return None
        with held_statistics(self.discriminator):
            return r1_penalty(lambda images: self.discriminator.forward(images)[0], x)

    def discriminator_loss(self, raw: Mapping[str, Tensor], penalty: Tensor | None) -> tuple[Tensor, Values]:
        """The weighted sum of raw terms and penalty, with its curve values."""
        own = self.config.loss.discriminator
        weighted = self.terms.weighted(raw)
        if penalty is not None:
            raw = {**raw, "r1": penalty}
            weighted["r1"] = own.r1 * own.r1_every * penalty
        loss = torch.stack(list(weighted.values())).sum()
        return loss, {"train/discriminator": loss.detach()} | curves(raw, weighted)

    # --- Autoencoder --------------------------------------------------------------------------------------------------

    def image_terms(
        self, names: Iterable[str], x: Tensor, images: Mapping[str, Tensor], augment: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Raw terms of the autoencoder's loss; the discriminator is frozen. A term of weight 0 takes no gradient."""
        names = list(names)
        judged: dict[str, Judged] = {}
        with frozen(self.discriminator), parametrize.cached():
            for kind in sorted(self.terms.kinds_seen(names)):
                trains = any(self.terms.weights[name] for name in names if name.endswith(kind))
                with torch.set_grad_enabled(kind != REAL and trains):
                    judged |= self.judge({kind: x if kind == REAL else images[kind]}, augment)
        return self.terms.images(names, x, images.get(RECON), judged)

    def gradient_norms(self, weighted: Mapping[str, Tensor], coded: Coded) -> Values:
        """Norm of each weighted term's gradient at the decoder's output (both kinds of image) and at the encoder's."""
        latent = [each for each in (coded.posterior.mean, coded.posterior.logvar) if each is not None]
        latent = [each for each in latent if each.requires_grad]
        values: Values = {}
        for name, term in weighted.items():
            if not term.requires_grad:
                continue
            if name == "kl":
                grads = torch.autograd.grad(term, latent, retain_graph=True, allow_unused=True)
                values["gradient/encoder/kl"] = gradient_norm(grads)
                continue
            images = [each for each in coded.images if each.requires_grad]
            grads = torch.autograd.grad(term, images, retain_graph=True, allow_unused=True)
            values[f"gradient/decoder/{name}"] = gradient_norm(grads)
            if self.terms.reaches_encoder(name):
                grads = torch.autograd.grad(coded.x_recon, latent, grads[0], retain_graph=True)
                values[f"gradient/encoder/{name}"] = gradient_norm(grads)
        return values

    def targets(self, term: str) -> tuple[str, ...]:
        """Networks that the gradient of a term goes to."""
        if term in DISCRIMINATOR_TERMS:
            return (DISCRIMINATOR,)
        if term == "kl":
            return (ENCODER,)
        return (ENCODER, DECODER) if self.terms.reaches_encoder(term) else (DECODER,)

    def parameters(self, *networks: str) -> list[nn.Parameter]:
        return [parameter for name in networks for parameter in self.networks[name].parameters()]

    def adam_step(self, network: str, rests: Tensor | None = None) -> None:
        """A step from the gradients in place, which are then dropped; none where `rests` is 1 (a device scalar)."""
        optimizer: Any = self.optimizers[network]
        if rests is not None:
            optimizer.found_inf = rests
        optimizer.step()
        if rests is not None:
            del optimizer.found_inf

    def zero_grad(self, *networks: str) -> None:
        for name in networks:
            self.optimizers[name].zero_grad(set_to_none=True)


def unchanged(images: Tensor) -> Tensor:
    return images


def _adam(network: nn.Module, config: TrialConfig, name: str) -> AdamW:
    optimizer = config.optimizer
    own = optimizer.discriminator if name == DISCRIMINATOR else optimizer.autoencoder
    lr = optimizer.autoencoder.lr * (optimizer.discriminator.lr_ratio if name == DISCRIMINATOR else 1.0)
    return AdamW(network.parameters(), lr=lr, betas=(own.beta1, own.beta2), weight_decay=own.weight_decay, fused=True)
