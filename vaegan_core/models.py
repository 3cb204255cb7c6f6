"""Encoder, Decoder (the generator of the GAN) and Discriminator of the seed, with size, depth and width as parameters.

Every block halves or doubles the image with a 5x5 kernel, so that sizes follow f(n) = ceil(n / 2) downwards; the
decoder retraces the same sizes exactly, whatever the size of the frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import _SpectralNorm, spectral_norm

from vaegan_core.config import DiscriminatorConfig, ModelConfig, Norm

GROUP_CHANNELS = 8


def downsampled(size: tuple[int, int], levels: int) -> list[tuple[int, int]]:
    """Sizes (H, W) from the frame itself down to the smallest map, `levels` halvings."""
    sizes = [size]
    for _ in range(levels):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """A normalization layer over [n, channels, h, w]; layer norm is over channels and space together."""
    match norm:
        case "none":
            return nn.Identity()
        case "batch":
            return nn.BatchNorm2d(channels)
        case "instance":
            return nn.InstanceNorm2d(channels, affine=True)
        case "group":
            return nn.GroupNorm(max(1, channels // GROUP_CHANNELS), channels)
        case "layer":
            return nn.GroupNorm(1, channels)


@dataclass(frozen=True)
class Posterior:
    """q(z|x) = N(mean, diag exp(logvar)); both float32 [n, latent_dim]."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """z = mean + std * noise (Kingma & Welling 2014, the reparameterization trick)."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise


class Encoder(nn.Module):
    """Images [n, 3, H, W] to a Posterior. Blocks: reflection pad 2, conv 5x5 stride 2, norm, ReLU; then linear."""

    def __init__(self, config: ModelConfig, size: tuple[int, int]) -> None:
        super().__init__()
        channels = [3] + [config.width * 2**level for level in range(config.depth)]
        height, width = downsampled(size, config.depth)[-1]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 5, stride=2, padding=2, padding_mode="reflect", bias=False),
                    make_norm(config.encoder.norm, after),
                    nn.ReLU(),
                )
                for before, after in pairwise(channels)
            )
        )
        self.posterior = nn.Linear(channels[-1] * height * width, 2 * config.latent_dim)

    def forward(self, x: Tensor) -> Posterior:
        mean, logvar = self.posterior(self.blocks(x).flatten(1)).float().chunk(2, dim=1)
        return Posterior(mean, logvar)


class Decoder(nn.Module):
    """The generator of the GAN: z [n, latent_dim] to images [n, 3, H, W] in [-1, 1], float32."""

    def __init__(self, config: ModelConfig, size: tuple[int, int]) -> None:
        super().__init__()
        sizes = downsampled(size, config.depth)[::-1]
        top = config.width * 2 ** (config.depth - 1)
        channels = [top] + [config.width * 2**level for level in reversed(range(config.depth))]
        self.shape = (top, *sizes[0])
        self.linear = nn.Linear(config.latent_dim, top * sizes[0][0] * sizes[0][1])
        blocks: list[nn.Module] = []
        for level in range(config.depth):
            (height, width), (next_height, next_width) = sizes[level], sizes[level + 1]
            grow = (next_height - (2 * height - 1), next_width - (2 * width - 1))
            blocks += [
                nn.ConvTranspose2d(
                    channels[level], channels[level + 1], 5, stride=2, padding=2, output_padding=grow, bias=False
                ),
                make_norm(config.decoder.norm, channels[level + 1]),
                nn.ReLU(),
            ]
        self.blocks = nn.Sequential(*blocks)
        self.to_image = nn.Conv2d(config.width, 3, 5, padding=2, padding_mode="reflect")

    def forward(self, z: Tensor) -> Tensor:
        maps = self.linear(z).unflatten(1, self.shape)
        return torch.tanh(self.to_image(self.blocks(maps)).float())


class Discriminator(nn.Module):
    """Images [n, 3, H, W] to (logits [n], feature map phi [n, c, h, w]), both float32.

    Convolutions 5x5, the first at full size, the others halving; phi is the last one's output, before any activation.
    """

    def __init__(self, config: ModelConfig, size: tuple[int, int]) -> None:
        super().__init__()
        own, top = config.discriminator, config.width * 2 ** (config.depth - 1)
        channels = [3, config.width // 2] + [min(config.width * 2 ** (level + 1), top) for level in range(config.depth)]
        height, width = downsampled(size, config.depth)[-1]
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(channels)):
            stride = 1 if index == 0 else 2
            if index > 0:
                layers += [_activation(own)]
            layers += [nn.Conv2d(before, after, 5, stride=stride, padding=2, padding_mode="reflect", bias=False)]
            if own.norm != "none" and 0 < index < config.depth:
                layers += [make_norm(own.norm, after)]
        self.features = nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Identity)))
        hidden = 8 * config.width
        self.classifier = nn.Sequential(
            nn.ReLU(), nn.Flatten(), nn.Linear(channels[-1] * height * width, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )
        if own.spectral_norm:
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    spectral_norm(module)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return self.classifier(features).squeeze(1).float(), features.float()


def mixes_batch(network: nn.Module) -> bool:
    """Whether, in training, what comes out for one image depends on the others in its batch."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def _activation(config: DiscriminatorConfig) -> nn.Module:
    match config.feature_activation:
        case "none":
            return nn.Identity()
        case "relu":
            return nn.ReLU()
        case "leaky_relu":
            return nn.LeakyReLU(0.2)


class Autoencoder(nn.Module):
    """Encoder and decoder together: what is averaged (EMA), validated, promoted and served."""

    def __init__(self, config: ModelConfig, size: tuple[int, int]) -> None:
        super().__init__()
        self.encoder = Encoder(config, size)
        self.decoder = Decoder(config, size)


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, forward passes leave running statistics and spectral norm's power iteration as they are, and no
    parameter takes gradient. The batch statistics of batch norm are still the batch's own."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    power_iterations = [m for m in module.modules() if isinstance(m, _SpectralNorm)]
    batch_norms = [(m, m.momentum) for m in module.modules() if isinstance(m, _BatchNorm)]
    for parameter in parameters:
        parameter.requires_grad_(False)
    for iteration in power_iterations:
        iteration.eval()
    for norm, _ in batch_norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for iteration in power_iterations:
            iteration.train(module.training)
        for norm, momentum in batch_norms:
            norm.momentum = momentum
