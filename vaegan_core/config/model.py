"""ModelConfig: the settings of the three networks."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vaegan_core.config.ranges import Positive
from vaegan_core.problems import Config

Norm = Literal["none", "batch", "instance", "group", "layer"]
ResidualBlocks = Annotated[int, Field(ge=0, le=32)]


class NetworkConfig(Config):
    """What encoder, decoder and discriminator have in common."""

    spectral_norm: bool = False
    """Spectral norm on every layer (Miyato et al. 2018)."""


class EncoderConfig(NetworkConfig):
    """The encoder: images to the posterior of z."""

    norm: Norm = "instance"
    """Instance norm makes the posterior mean blind to an image's color offset (vaegan_core/README.md)."""
    deterministic: bool = False
    """z is a linear map of the features, without bias and without variance; the KL is then that of batch moments."""
    latent_norm: Literal["none", "batch"] = "none"
    """Batch norm over the posterior mean, without scale and shift; with `deterministic` the author's "BN cheat"."""
    logvar_limit: Positive | None = None
    """|log variance| stays below it: limit * tanh(raw / limit). Null: unbounded."""


class DecoderConfig(NetworkConfig):
    """The decoder, which is also the generator of the GAN."""

    norm: Norm = "instance"
    activation: Literal["relu", "leaky_relu"] = "relu"
    upsampling: Literal["transposed", "resize"] = "transposed"
    """transposed: 5x5 convolution of stride 2, as in the seed, with its checkerboards. resize: nearest neighbor, then a
    3x3 convolution (Odena et al. 2016), at 1.44 times the FLOPs."""
    residual_blocks: ResidualBlocks = 0
    """Residual blocks of two 3x3 convolutions (He et al. 2016b) after each doubling, each 1.4 to 2.9 times the FLOPs of
    the transposed convolution before it."""


class DiscriminatorConfig(NetworkConfig):
    """The discriminator D, and which of its layers gives the features."""

    norm: Norm = "none"
    feature_activation: Literal["none", "relu", "leaky_relu"] = "none"
    """Activation between the convolutions that lead to the feature map; the seed has none."""
    feature_layer: Annotated[int, Field(ge=0)] | None = None
    """Convolution whose output is the feature map, from 0; null: the last one, as in the seed."""
    feature_norm: Norm = "none"
    """Norm at the end of the feature map, before the loss and the layers after it."""
    residual_blocks: ResidualBlocks = 0
    """Residual blocks of two 3x3 convolutions (He et al. 2016b), with leaky ReLU, after each convolution that halves;
    each 0.7 to 2.9 times its FLOPs. Those of the feature map's own level come after it."""
    patch_head: bool = False
    """A second head that judges each place of the last map (Isola et al. 2017, PatchGAN), weighted by `loss.heads`."""

    @property
    def mixes_batch(self) -> bool:
        """Whether D's output for one image depends on the others in its batch."""
        return "batch" in (self.norm, self.feature_norm)


class ModelConfig(Config):
    """Sizes of the networks."""

    latent_dim: Annotated[int, Field(ge=1, le=2**16)]
    width: Annotated[int, Field(ge=2, le=2**12, multiple_of=2)]
    """Channels after the first encoder block; the seed has 64. Every other channel count is a multiple of it."""
    depth: Annotated[int, Field(ge=1, le=6)] = 3
    """Blocks that halve (encoder, discriminator) or double (decoder) the image; the seed has 3."""
    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()

    @model_validator(mode="after")
    def _feature_layer_exists(self) -> Self:
        layer = self.discriminator.feature_layer
        if layer is not None and layer > self.depth:
            raise ValueError(
                f"discriminator.feature_layer <= depth must hold (there are depth + 1 convolutions), "
                f"but got {layer} and depth {self.depth}"
            )
        return self
