"""The losses of one training step written out as in a textbook, to compare a trainer's gradients with."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import softplus

from vaegan_core.losses.functional import (
    feature_matching_loss,
    feature_scale,
    gaussian_kl_divergence,
    pixel_loss,
)
from vaegan_core.model.networks import Posterior
from vaegan_core.training.trainer import Trainer

ALL_TERMS: dict[str, Any] = {
    "loss__generator": {"recon": 0.7, "prior": 0.3},
    "loss__feature": {"recon": 0.9, "prior": 0.2},
    "loss__discriminator": {"real": 1.0, "recon": 0.4, "prior": 0.8},
    "loss__kl": {"control": "fixed", "sigma": 0.3},
}
NETWORK_OPTIONS = {
    "model__decoder": {"upsampling": "resize", "residual_blocks": 1, "norm": "group"},
    "model__discriminator": {"residual_blocks": 1, "patch_head": True, "norm": "group"},
    "loss__heads": {"whole": 0.6, "patch": 0.8},
}
"""Resize-convolution, residual blocks and a patch head."""
PENALTIES = {"loss__discriminator": ALL_TERMS["loss__discriminator"] | {"r1": 2.0, "r2": 3.0, "r1_every": 1}}
UNTOUCHED_D = {"optimizer__discriminator": {"lr_ratio": 1e-30}}
"""Joint updates the autoencoder after D; with D standing still both schemes see the same weights."""


def network_grads(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {
        f"{network}.{name}": parameter.grad
        for network, module in trainer.update.networks.items()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


class WrittenOut:
    """The losses of one step as a textbook has them, on copies of a trainer's networks and its next batch."""

    def __init__(self, trainer: Trainer) -> None:
        self.loss = trainer.config.loss
        self.adversarial, self.variance = trainer.update.terms.adversarial, trainer.variance
        self.relativistic = self.loss.adversarial == "relativistic"
        self.control = trainer.kl.control
        self.networks = {name: copy.deepcopy(network) for name, network in trainer.update.networks.items()}
        state = trainer.generator.get_state()
        self.draw = trainer._draw(trainer.step)
        trainer.generator.set_state(state)

    def code(self) -> tuple[Posterior, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Posterior, reconstruction whose gradient reaches both networks, the decoder only, and prior samples."""
        posterior = self.networks["encoder"](self.draw.x)
        z = posterior.sample(self.draw.noise)
        decoder = self.networks["decoder"]
        if any(isinstance(module, torch.nn.BatchNorm2d) for module in decoder.modules()):
            to_both, _ = decoder(torch.cat([z, self.draw.z_prior])).chunk(2)
            to_decoder, x_prior = decoder(torch.cat([z.detach(), self.draw.z_prior])).chunk(2)
        else:
            to_both, to_decoder, x_prior = decoder(z), decoder(z.detach()), decoder(self.draw.z_prior)
        return posterior, to_both, to_decoder, x_prior

    def over_heads(self, loss: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
        heads = self.loss.heads
        if logits.dim() == 1:
            return heads.whole * loss(logits)
        return heads.whole * loss(logits[:, 0]) + heads.patch * loss(logits[:, 1:])

    def of_pairs(self, winner: torch.Tensor, loser: torch.Tensor) -> torch.Tensor:
        logits_of = self.networks["discriminator"]
        return self.over_heads(lambda margin: softplus(-margin).mean(), logits_of(winner)[0] - logits_of(loser)[0])

    def of_real(self) -> torch.Tensor:
        """D's loss on frames, without weight."""
        return self.over_heads(self.adversarial.real, self.networks["discriminator"](self.draw.x)[0])

    def of_fake(self, fake: torch.Tensor) -> torch.Tensor:
        """D's loss on fake images, without weight."""
        if self.relativistic:
            return self.of_pairs(self.draw.x, fake)
        return self.over_heads(self.adversarial.fake, self.networks["discriminator"](fake)[0])

    def of_generator(self, fake: torch.Tensor) -> torch.Tensor:
        """The generator's loss on fake images, without weight."""
        if self.relativistic:
            return self.of_pairs(fake, self.draw.x)
        return self.over_heads(self.adversarial.generator, self.networks["discriminator"](fake)[0])

    def penalty(self, images: torch.Tensor) -> torch.Tensor:
        x = images.detach().requires_grad_()
        logits, heads = self.networks["discriminator"](x)[0], self.loss.heads
        if logits.dim() > 1:
            logits = heads.whole * logits[:, 0] + heads.patch * logits[:, 1:].mean(dim=1)
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return gradient.square().sum(dim=(1, 2, 3)).mean() / 2

    def penalties(self) -> torch.Tensor:
        """R1 and R2 with their weights, as on a step where they are due."""
        weights, total = self.loss.discriminator, torch.zeros(())
        _, x_recon, _, x_prior = self.code()
        if weights.r1:
            total = weights.r1 * self.penalty(self.draw.x)
        if weights.r2:
            fake = weights.recon * self.penalty(x_recon) + weights.prior * self.penalty(x_prior)
            total = total + weights.r2 * fake / (weights.recon + weights.prior)
        return weights.r1_every * total

    def discriminator_loss(self) -> torch.Tensor:
        weights = self.loss.discriminator
        _, x_recon, _, x_prior = self.code()
        fake = weights.recon * self.of_fake(x_recon.detach()) + weights.prior * self.of_fake(x_prior.detach())
        return fake + self.penalties() + (0.0 if self.relativistic else weights.real * self.of_real())

    def autoencoder_parts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The generator's terms, and all others."""
        discriminator, loss = self.networks["discriminator"], self.loss
        posterior, to_both, to_decoder, x_prior = self.code()
        for_generator = to_decoder if loss.generator.gradient == "decoder" else to_both
        for_feature = to_decoder if loss.feature.gradient == "decoder" else to_both
        real = discriminator(self.draw.x)[1].detach()
        scale = feature_scale(real, loss.feature.scale_free)
        generator = loss.generator.recon * self.of_generator(for_generator)
        generator = generator + loss.generator.prior * self.of_generator(x_prior)
        others = (
            loss.feature.recon * feature_matching_loss(discriminator(for_feature)[1], real, scale)
            + loss.feature.prior * feature_matching_loss(discriminator(x_prior)[1], real, scale)
            + loss.pixel.weight * pixel_loss(to_both, self.draw.x, loss.pixel.kind, self.variance)
            + self.control.term(gaussian_kl_divergence(posterior), 0)
        )
        return generator, others

    def grads(self, loss: torch.Tensor, *names: str) -> dict[str, torch.Tensor]:
        named = {f"{name}.{key}": p for name in names for key, p in self.networks[name].named_parameters()}
        found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
        return {key: grad for key, grad in zip(named, found, strict=True) if grad is not None}


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], rel: float = 1e-4) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= rel * gradient.norm() + 3e-7, name
