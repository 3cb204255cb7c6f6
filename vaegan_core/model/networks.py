"""The seed's Encoder, Decoder (the generator of the GAN) and Discriminator, with size, depth and width as parameters.

Every block halves or doubles the image with a 5x5 kernel, so that sizes follow f(n) = ceil(n / 2) on the way down; the
decoder retraces exactly the same sizes, for frames of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from vaegan_core.config.model import DecoderConfig, ModelConfig, Norm
from vaegan_core.model.sizes import downsampled

GROUP_CHANNELS = 8
"""Least channels of a group under group norm, where there are as many."""
RESIDUAL_SCALE = 0.1
"""Scale of every residual branch before training (Touvron et al. 2021, sec. 2: 0.1 up to 18 layers)."""


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
            most = max(1, channels // GROUP_CHANNELS)
            return nn.GroupNorm(next(groups for groups in range(most, 0, -1) if channels % groups == 0), channels)
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


class ResidualBlock(nn.Module):
    """x + scale conv(act(norm(conv(act(x))))) on maps [n, channels, h, w], both convolutions 3x3, reflection padded.

    Pre-activation (He et al. 2016b, fig. 4e, without the first norm), with one learned scale per channel (Touvron et
    al. 2021, sec. 2). The block starts near the identity because the scale is small; a last convolution of zeros would
    do that too, but has no spectral norm, and would leave the others without gradient in the first step.
    """

    def __init__(self, channels: int, norm: Norm, activation: str) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            _activation(activation),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False),
            make_norm(norm, channels),
            _activation(activation),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False),
        )
        self.scale = nn.Parameter(torch.full((channels, 1, 1), RESIDUAL_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.scale * self.branch(x)
        return x + residual


def _upsampling(
    config: DecoderConfig, channels: tuple[int, int], size: tuple[int, int], grown: tuple[int, int]
) -> nn.Module:
    """Maps of `size` to maps of the `grown` size, twice as large or one less.

    Resize: nearest neighbor, then a convolution, so that every output pixel has equally many inputs (Odena et al.
    2016). Its kernel is 3x3 because it runs at the grown size: 1.44 times the multiply-adds of the 5x5 transposed
    convolution, where 5x5 would need 4 times as many. It sees 2x2 input pixels; the transposed one, 2x2 to 3x3.
    """
    if config.upsampling == "resize":
        return nn.Sequential(nn.Upsample(grown), nn.Conv2d(*channels, 3, padding=1, padding_mode="reflect", bias=False))
    padding = (grown[0] - (2 * size[0] - 1), grown[1] - (2 * size[1] - 1))
    return nn.ConvTranspose2d(*channels, 5, stride=2, padding=2, output_padding=padding, bias=False)


class Decoder(nn.Module):
    """The generator of the GAN: z [n, latent_dim] to images [n, 3, H, W] in [-1, 1], float32.

    Blocks: upsampling, norm, residual blocks if any, activation; then a convolution to the image.
    """

    def __init__(self, config: ModelConfig, size: tuple[int, int]) -> None:
        super().__init__()
        settings = config.decoder
        sizes = downsampled(size, config.depth)[::-1]
        top = config.width * 2 ** (config.depth - 1)
        channels = [top] + [config.width * 2**level for level in reversed(range(config.depth))]
        self.shape = (top, *sizes[0])
        self.linear = nn.Linear(config.latent_dim, top * sizes[0][0] * sizes[0][1])
        blocks: list[nn.Module] = []
        for level in range(config.depth):
            before, after = channels[level], channels[level + 1]
            blocks += [
                _upsampling(settings, (before, after), sizes[level], sizes[level + 1]),
                make_norm(settings.norm, after),
                *(ResidualBlock(after, settings.norm, settings.activation) for _ in range(settings.residual_blocks)),
                _activation(settings.activation),
            ]
        self.blocks = nn.Sequential(*blocks)
        self.to_image = nn.Conv2d(config.width, 3, 5, padding=2, padding_mode="reflect")
        _normalize_spectrum(self, settings.spectral_norm)

    def forward(self, z: Tensor) -> Tensor:
        maps = self.linear(z).unflatten(1, self.shape)
        return torch.tanh(self.to_image(self.blocks(maps)).float())


WHOLE_HEAD = 4
"""Layers at the end of D's classifier that judge the whole image: flatten, linear, ReLU, linear."""


class Discriminator(nn.Module):
    """Images [n, 3, H, W] to (logits [n], feature map phi [n, c, h, w]), both float32.

    Convolutions 5x5, the first at full size, the others halving; phi is the output of one of them, the last unless
    configured otherwise, before any activation. Residual blocks follow each halving convolution: those of earlier
    levels lead to phi and make it nonlinear, those of its own level come after it and serve the verdict alone.

    With a patch head logits are [n, 1 + h w]: that of the whole image, then one for each place of the last map (Isola
    et al. 2017, PatchGAN), by a 1x1 convolution of what the whole head sees. Without norm and residual blocks a patch
    is 4 * 2^depth + 1 pixels wide: 17 at depth 2, 33 at depth 3.
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
            if index > 0:
                layers += [ResidualBlock(after, settings.norm, "leaky_relu") for _ in range(settings.residual_blocks)]
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
        self.patch_head = nn.Conv2d(channels[-1], 1, 1) if settings.patch_head else None
        _normalize_spectrum(self, settings.spectral_norm)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        if self.patch_head is None:
            return self.classifier(features).squeeze(1).float(), features.float()
        maps = self.classifier[:-WHOLE_HEAD](features)
        heads = (self.classifier[-WHOLE_HEAD:](maps), self.patch_head(maps).flatten(1))
        return torch.cat([logits.float() for logits in heads], dim=1), features.float()


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

    def __init__(
        self, config: ModelConfig, size: tuple[int, int], before_each: Callable[[str], object] = lambda _: None
    ) -> None:
        """Builds both, for images of `size` (height, width); calls `before_each` with the name of what is next."""
        super().__init__()
        before_each("encoder")
        self.encoder = Encoder(config, size)
        before_each("decoder")
        self.decoder = Decoder(config, size)
