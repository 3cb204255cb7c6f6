"""The seed's Encoder, Decoder (the generator of the GAN) and Discriminator, with size, depth and width as parameters.

Every block halves or doubles the image with a 5x5 kernel, so that sizes follow f(n) = ceil(n / 2) on the way down; the
decoder retraces exactly the same sizes, for frames of any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from vaegan_core.config import ModelConfig, Norm
from vaegan_core.model.sizes import downsampled

GROUP_CHANNELS = 8


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
    """q(z|x) = N(mean, diag exp(logvar)); both float32 [n, latent_dim]. Without logvar, z is the mean."""

    mean: Tensor
    logvar: Tensor | None

    def sample(self, noise: Tensor) -> Tensor:
        """z = mean + std * noise (Kingma & Welling 2014, the reparameterization trick)."""
        if self.logvar is None:
            return self.mean
        return self.mean + torch.exp(0.5 * self.logvar) * noise


class Encoder(nn.Module):
    """Images [n, 3, H, W] to a Posterior. Blocks: reflection pad 2, conv 5x5 stride 2, norm, ReLU; then linear."""

    def __init__(self, config: ModelConfig, size: tuple[int, int]) -> None:
        super().__init__()
        settings = config.encoder
        channels = [3] + [config.width * 2**level for level in range(config.depth)]
        height, width = downsampled(size, config.depth)[-1]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 5, stride=2, padding=2, padding_mode="reflect", bias=False),
                    make_norm(settings.norm, after),
                    nn.ReLU(),
                )
                for before, after in pairwise(channels)
            )
        )
        outputs = config.latent_dim if settings.deterministic else 2 * config.latent_dim
        self.posterior = nn.Linear(channels[-1] * height * width, outputs, bias=not settings.deterministic)
        self.latent_norm = (
            nn.BatchNorm1d(config.latent_dim, affine=False) if settings.latent_norm == "batch" else nn.Identity()
        )
        self.deterministic, self.logvar_limit = settings.deterministic, settings.logvar_limit
        _normalize_spectrum(self, settings.spectral_norm)

    def forward(self, x: Tensor) -> Posterior:
        outputs = self.posterior(self.blocks(x).flatten(1)).float()
        if self.deterministic:
            return Posterior(self.latent_norm(outputs), None)
        mean, logvar = outputs.chunk(2, dim=1)
        if self.logvar_limit is not None:
            logvar = self.logvar_limit * torch.tanh(logvar / self.logvar_limit)
        return Posterior(self.latent_norm(mean), logvar)


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
                _activation(config.decoder.activation),
            ]
        self.blocks = nn.Sequential(*blocks)
        self.to_image = nn.Conv2d(config.width, 3, 5, padding=2, padding_mode="reflect")
        _normalize_spectrum(self, config.decoder.spectral_norm)

    def forward(self, z: Tensor) -> Tensor:
        maps = self.linear(z).unflatten(1, self.shape)
        return torch.tanh(self.to_image(self.blocks(maps)).float())


class Discriminator(nn.Module):
    """Images [n, 3, H, W] to (logits [n], feature map phi [n, c, h, w]), both float32.

    Convolutions 5x5, the first at full size, the others halving; phi is the output of one of them, the last unless
    configured otherwise, before any activation.
    """

    def __init__(self, config: ModelConfig, size: tuple[int, int]) -> None:
        super().__init__()
        settings, top = config.discriminator, config.width * 2 ** (config.depth - 1)
        channels = [3, config.width // 2] + [min(config.width * 2 ** (level + 1), top) for level in range(config.depth)]
        height, width = downsampled(size, config.depth)[-1]
        feature_layer = config.depth if settings.feature_layer is None else settings.feature_layer
        layers: list[nn.Module] = []
        num_feature_layers = 0
        for index, (before, after) in enumerate(pairwise(channels)):
            stride = 1 if index == 0 else 2
            if index > 0:
                layers += [_activation(settings.feature_activation)]
            layers += [nn.Conv2d(before, after, 5, stride=stride, padding=2, padding_mode="reflect", bias=False)]
            if settings.norm != "none" and 0 < index < config.depth:
                layers += [make_norm(settings.norm, after)]
            if index == feature_layer:
                layers += [make_norm(settings.feature_norm, after)]
                num_feature_layers = len(layers)
        self.features = _sequential(layers[:num_feature_layers])
        hidden = 8 * config.width
        self.classifier = _sequential(
            [
                *layers[num_feature_layers:],
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(channels[-1] * height * width, hidden),
                nn.ReLU(),
                nn.Linear(hidden, 1),
            ]
        )
        _normalize_spectrum(self, settings.spectral_norm)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return self.classifier(features).squeeze(1).float(), features.float()


def _sequential(layers: list[nn.Module]) -> nn.Sequential:
    return nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Identity)))


def _activation(name: str) -> nn.Module:
    match name:
        case "none":
            return nn.Identity()
        case "relu":
            return nn.ReLU()
        case "leaky_relu":
            return nn.LeakyReLU(0.2)
    raise AssertionError(name)


def _normalize_spectrum(network: nn.Module, wanted: bool) -> None:
    """Puts spectral norm on every layer with a weight matrix or kernel (Miyato et al. 2018), if wanted."""
    for module in list(network.modules()) if wanted else ():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            spectral_norm(module)


class Autoencoder(nn.Module):
    """Encoder and decoder together: the part that is averaged (EMA), validated, promoted and served."""

    def __init__(self, config: ModelConfig, size: tuple[int, int]) -> None:
        super().__init__()
        self.encoder = Encoder(config, size)
        self.decoder = Decoder(config, size)
