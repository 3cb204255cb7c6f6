"""Autoencoders and discriminators put together of functions, whose metrics are known."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vaegan_core.model.networks import Posterior

LATENT_DIM = 64
SIZE = (17, 31)


class Toy(nn.Module):
    """An autoencoder put together of functions."""

    def __init__(self, encoder: Callable[[Tensor], Posterior], decoder: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder


class Judge(nn.Module):
    """A discriminator put together of functions of images: logits and features."""

    def __init__(self, logit: Callable[[Tensor], Tensor], gain: float = 1.0) -> None:
        super().__init__()
        self.logit, self.gain = logit, gain

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.logit(x), self.gain * x


class PCA:
    """Principal components of training frames as encoder and decoder: a model that needs no training.

    Latents of training frames have mean 0 and variance 1 in every dimension.
    """

    def __init__(self, images: Tensor) -> None:
        flat = images.flatten(1)
        self.center = flat.mean(0)
        _, values, vectors = torch.linalg.svd(flat - self.center, full_matrices=False)
        self.directions = vectors[:LATENT_DIM] * values[:LATENT_DIM, None] / math.sqrt(len(flat))
        self.inverse = torch.linalg.pinv(self.directions)

    def encode(self, x: Tensor) -> Posterior:
        mean = (x.flatten(1) - self.center) @ self.inverse
        return Posterior(mean, torch.full_like(mean, -6.0))

    def decode(self, z: Tensor) -> Tensor:
        images: Tensor = (z @ self.directions + self.center).unflatten(1, (3, *SIZE)).clamp(-1, 1)
        return images


def alone(logits: Tensor) -> Tensor:
    """The score of a D whose only logit is that of the whole image."""
    return logits


def constant(z: Tensor) -> Tensor:
    return torch.full((len(z), 3, *SIZE), 0.3)


def uninformed(x: Tensor) -> Posterior:
    return Posterior(torch.zeros(len(x), LATENT_DIM), torch.zeros(len(x), LATENT_DIM))
