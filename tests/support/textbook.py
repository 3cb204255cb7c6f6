"""The losses of one training step written out as in a textbook, to compare a trainer's gradients with."""

import copy

import torch

from vaegan_core.losses.functional import feature_matching_loss, feature_scale, gaussian_kl_divergence, pixel_loss
from vaegan_core.model.networks import Posterior
from vaegan_core.training.trainer import Trainer

ALL_TERMS = {
    "loss__generator": {"recon": 0.7, "prior": 0.3},
    "loss__feature": {"recon": 0.9, "prior": 0.2},
    "loss__discriminator": {"real": 1.0, "recon": 0.4, "prior": 0.8},
    "loss__kl": {"control": "fixed", "sigma": 0.3},
}
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

    def discriminator_loss(self) -> torch.Tensor:
        discriminator, weights = self.networks["discriminator"], self.loss.discriminator
        _, x_recon, _, x_prior = self.code()
        if self.loss.adversarial == "relativistic":
            real, recon, prior = (discriminator(x.detach())[0] for x in (self.draw.x, x_recon, x_prior))
            of_recon, of_prior = (torch.nn.functional.softplus(-(real - fake)).mean() for fake in (recon, prior))
            return weights.recon * of_recon + weights.prior * of_prior
        return (
            weights.real * self.adversarial.real(discriminator(self.draw.x)[0])
            + weights.recon * self.adversarial.fake(discriminator(x_recon.detach())[0])
            + weights.prior * self.adversarial.fake(discriminator(x_prior.detach())[0])
        )

    def of_generator(self, fake: torch.Tensor) -> torch.Tensor:
        """The generator's loss on fake images."""
        discriminator = self.networks["discriminator"]
        if self.loss.adversarial == "relativistic":
            return torch.nn.functional.softplus(-(discriminator(fake)[0] - discriminator(self.draw.x)[0])).mean()
        return self.adversarial.generator(discriminator(fake)[0])

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
