"""LossConfig: the settings of every term of the loss, and of the controls of the KL's weight."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vaegan_core.config.ranges import AdamBeta, Positive, Steps, Weight
from vaegan_core.problems import Config, exactly_one

GradientTarget = Literal["autoencoder", "decoder"]


class KLControlConfig(Config):
    """What every control of the KL has in common."""

    estimator: Literal["sample", "batch", "full_batch"] = "sample"
    """sample: KL(q(z|x) || N(0, I)) of each image; batch: KL of the Gaussian with the moments of z over the batch;
    full_batch: the same with the full covariance of the batch's posteriors, Cov(mu) + diag(mean sigma^2)."""
    momentum: AdamBeta = 0.0
    """Weight of the old moments under `estimator: batch` or full_batch; the gradient carries the factor 1 - momentum.
    """
    free_bits: Weight = 0.0
    """Nats per latent dimension that cost nothing (Kingma et al. 2016, eq. 15)."""
    per_dimension: bool = False
    """The constants of the control are for a KL averaged over the L latent dimensions, like the seed author's. In nats
    they are beta / L, gamma / L, capacity_max * L, target * L, and rate / L^2 for the linear law."""

    @model_validator(mode="after")
    def _momentum_of_something(self) -> Self:
        if self.momentum and self.estimator == "sample":
            raise ValueError(
                f"momentum belongs to estimator: batch or full_batch, but got {self.momentum} and estimator: sample"
            )
        return self

    @model_validator(mode="after")
    def _free_bits_of_dimensions(self) -> Self:
        if self.free_bits and self.estimator == "full_batch":
            raise ValueError(
                "free_bits are per latent dimension, into which a KL of the full covariance does not fall apart; "
                f"set free_bits to 0, but got {self.free_bits}, or estimator to batch"
            )
        return self


class FixedBetaConfig(KLControlConfig):
    """beta * KL (Higgins et al. 2017). Give `beta`, or `sigma`: the decoder standard deviation it stands for."""

    control: Literal["fixed"]
    beta: Weight | None = None
    """Weight of the KL in nats."""
    sigma: Positive | None = None
    """Decoder standard deviation on images in [-1, 1]: beta = 2 sigma^2 / (N Var x), N the number of pixel values."""
    warmup: Weight = 0.0
    """Share of train.steps over which beta rises linearly from 0 (Bowman et al. 2016)."""

    @model_validator(mode="after")
    def _one_weight(self) -> Self:
        exactly_one(self, "beta", "sigma")
        return self


class CapacityConfig(KLControlConfig):
    """gamma * |KL - C(step)|, C rising linearly from 0 to `capacity_max` (Burgess et al. 2018, eq. 8)."""

    control: Literal["capacity"]
    gamma: Weight | None = None
    """Weight per nat."""
    gamma_sigma: Positive | None = None
    """gamma as the decoder standard deviation it stands for, like `sigma` of fixed."""
    capacity_max: Weight
    """In nats per image."""
    ramp: Positive
    """Share of train.steps after which C reaches `capacity_max`; above 1 it never does."""

    @model_validator(mode="after")
    def _one_weight(self) -> Self:
        exactly_one(self, "gamma", "gamma_sigma")
        return self


class AdaptiveBetaConfig(KLControlConfig):
    """beta follows KL toward `target` (Peng et al. 2019, eq. 9-10, and a law on log beta)."""

    control: Literal["adaptive"]
    target: Positive
    """In nats per image."""
    law: Literal["log", "linear"] = "log"
    """log: beta <- beta exp(rate (KL/target - 1)); linear: beta <- beta + rate (KL - target), the seed author's."""
    rate: Positive
    beta_init: Positive | None = None
    """Null: the beta that a decoder standard deviation of 0.1 stands for."""
    beta_min: Positive = 1e-9
    beta_max: Positive = 1e3

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.beta_min >= self.beta_max:
            raise ValueError(f"beta_min < beta_max must hold, but got {self.beta_min} and {self.beta_max}")
        return self


class OptimalSigmaConfig(KLControlConfig):
    """The weight that makes KL and `loss.pixel.kind: log_mse` the ELBO with the decoder variance that is best for each
    batch (Rybkin et al. 2021, optimal sigma-VAE): 2 w / N, w the pixel weight, N the number of pixel values."""

    control: Literal["optimal"]

    @model_validator(mode="after")
    def _no_constants(self) -> Self:
        if self.per_dimension:
            raise ValueError("per_dimension converts constants, and control: optimal has none; set it to false")
        return self


KLConfig = Annotated[
    FixedBetaConfig | CapacityConfig | AdaptiveBetaConfig | OptimalSigmaConfig, Field(discriminator="control")
]


class DiscriminatorLossConfig(Config):
    """Weights of the three kinds of image in the discriminator's loss; 1 : 1/2 : 1/2 makes chance D(x) one half."""

    real: Weight = 1.0
    """Without effect under `adversarial: relativistic`, where real images have no term apart from the pairs."""
    recon: Weight = 0.5
    prior: Weight = 0.5
    r1: Weight = 0.0
    """Weight gamma of the penalty gamma/2 |grad D(x)|^2 on real images (Mescheder et al. 2018, eq. 9)."""
    r2: Weight = 0.0
    """Weight gamma of the same penalty on fake images (Mescheder et al. 2018, eq. 10), averaged over reconstructions
    and prior samples by their weights here."""
    r1_every: Steps = 16
    """Steps between penalties, R2's too, which also multiply each one (Karras et al. 2020, sec. 3.1)."""
    augment: Literal["none", "color", "translation", "all"] = "none"
    """Differentiable augmentation of all images that D sees (Zhao et al. 2020); all: color, translation and cutout."""


class HeadsConfig(Config):
    """Weights of D's heads: each adversarial term is the sum over heads of weight times the loss of that head's logits,
    and R1 is that of the sum of weight times the head's output, the mean of it over patches."""

    whole: Weight = 1.0
    """The logit of the whole image. At 0, AUC and mean probability are those of the mean over patches."""
    patch: Weight = 0.0
    """The logits of patches; above 0 exactly where there is a `model.discriminator.patch_head`."""

    @model_validator(mode="after")
    def _some_head(self) -> Self:
        if not (self.whole or self.patch):
            raise ValueError("whole or patch must be above 0, or no image would be judged, but both are 0")
        return self


class GeneratorLossConfig(Config):
    """Weights of the adversarial terms for the decoder."""

    recon: Weight = 1.0
    prior: Weight = 1.0
    weighting: Literal["fixed", "adaptive"] = "fixed"
    """adaptive: times the ratio of the reconstruction's gradient to the GAN's at the last layer (Esser et al. 2021,
    eq. 7)."""
    gradient: GradientTarget = "decoder"
    """What the adversarial gradient of reconstructions reaches; in the seed's code the decoder only."""


class FeatureLossConfig(Config):
    """Feature matching in the discriminator's feature map."""

    recon: Weight = 1.0
    prior: Weight = 0.0
    """Paired feature matching on prior samples, as the seed has it; it rewards collapse (vaegan_core/README.md)."""
    prior_matching: Literal["paired", "moments"] = "paired"
    """moments: the batch means of the features are matched instead (Salimans et al. 2016, sec. 3.1)."""
    scale_free: bool = True
    """Divide by the detached variance of the real features, so that the weight carries over between widths."""
    gradient: GradientTarget = "autoencoder"


class PixelLossConfig(Config):
    """The reconstruction error of pixels."""

    weight: Weight = 0.0
    """0 as in the seed: tracked, not optimized."""
    kind: Literal["mse", "l1", "bce", "log_mse"] = "mse"
    """bce: binary cross-entropy of images mapped to [0, 1]; log_mse: logarithm of the batch's mse, for
    `loss.kl.control: optimal`."""
    scale_free: bool = True
    """Divide mse by the variance of the training frames, within log_mse too, which only shifts it (l1 by their
    standard deviation, bce by nothing)."""


class LossConfig(Config):
    """Every term of the loss."""

    adversarial: Literal["bce", "hinge", "lsgan", "relativistic"] = "bce"
    """relativistic: BCE on D(fake) - D(real) (Jolicoeur-Martineau 2018; Huang et al. 2024), each fake image paired with
    the frame of the same place in the batch: a reconstruction with its own, a prior sample with a random one."""
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of train.steps before which only pixels and KL act: no discriminator step, generator or feature term (as
    `disc_start` in the code of Esser et al. 2021)."""
    heads: HeadsConfig = HeadsConfig()
    discriminator: DiscriminatorLossConfig = DiscriminatorLossConfig()
    generator: GeneratorLossConfig = GeneratorLossConfig()
    feature: FeatureLossConfig = FeatureLossConfig()
    pixel: PixelLossConfig = PixelLossConfig()
    kl: KLConfig
