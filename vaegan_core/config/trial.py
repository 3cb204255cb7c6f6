"""TrialConfig: the whole of one trial, validated. Frozen; an unknown key is an error; required means no default.

Conventions (vaegan_core/README.md): images are in [-1, 1]; KL is in nats, summed over latent
dimensions and averaged over the batch; reconstruction errors are means over pixels and channels.

One room because a trial is one tree of settings, and the rule of every key stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from vaegan_core.problems import (
    Config,
    ConfigError,
    Problem,
    Rule,
    exactly_one,
    rule,
    valid_parts,
    violations,
)
from vaegan_core.strict_yaml import dump_yaml, load_yaml, set_override

Norm = Literal["none", "batch", "instance", "group", "layer"]
GradientTarget = Literal["autoencoder", "decoder"]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Steps = Annotated[int, Field(ge=1, le=10**9)]
ResidualBlocks = Annotated[int, Field(ge=0, le=32)]
AdamBeta = Annotated[float, Field(ge=0, lt=1)]


# --- Networks ---------------------------------------------------------------------------------------------------------


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


# --- Losses -----------------------------------------------------------------------------------------------------------


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


# --- Training ---------------------------------------------------------------------------------------------------------


class AutoencoderOptimizerConfig(Config):
    """Adam for encoder and decoder."""

    lr: Positive = 1e-4
    beta1: AdamBeta = 0.9
    beta2: AdamBeta = 0.999
    weight_decay: Weight = 0.0
    """Decoupled from the gradient (Loshchilov & Hutter 2019); per step, times the learning rate."""


class DiscriminatorOptimizerConfig(Config):
    """Adam for the discriminator."""

    lr_ratio: Positive = 1.0
    """Learning rate as a multiple of the autoencoder's."""
    beta1: AdamBeta = 0.9
    beta2: AdamBeta = 0.999
    weight_decay: Weight = 0.0


class OptimizerConfig(Config):
    """One Adam per network, and the schedule of their learning rates."""

    autoencoder: AutoencoderOptimizerConfig = AutoencoderOptimizerConfig()
    discriminator: DiscriminatorOptimizerConfig = DiscriminatorOptimizerConfig()
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of train.steps over which both learning rates rise linearly from 0."""
    decay: Literal["none", "linear", "cosine"] = "none"
    """Decay of both learning rates to 0 at train.steps. A constant rate keeps rungs and extended trials comparable."""


class BalanceConfig(Config):
    """Loss-balanced updates (Larsen et al. 2016, their code): D rests while its loss on real or fake images is below
    equilibrium - margin, the decoder rests while one is above equilibrium + margin; when both would rest, neither does.
    """

    equilibrium: Positive
    margin: Weight


class TrainConfig(Config):
    """The training loop and how it runs on the machine."""

    steps: Steps
    """Training steps of full fidelity."""
    update: Literal["joint", "simultaneous", "per_term", "per_term_stale"] = "joint"
    """joint: one Adam step per network, D first. simultaneous: the same from a single discriminator pass. per_term: one
    Adam step per loss term on fresh passes (the author's code of 2019-04-25); stale: all from one pass, as before."""
    discriminator_steps: Annotated[int, Field(ge=1, le=100)] = 1
    """Discriminator updates per step, each on a batch of its own."""
    balance: BalanceConfig | None = None
    """Null: every network is updated in every step."""
    batch_size: Annotated[int, Field(ge=2, le=2**16)] = 64
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    seeding: Literal["joint", "separate"] = "joint"
    """joint: one random stream from `seed` for all networks, and one for the noise. separate: encoder, decoder and
    discriminator have streams of their own, and so has the noise of each step, so that trials of one seed still share
    them where another part of them has another shape."""
    log_every: Steps = 20
    """Steps per curve point; a point is the mean over them."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay per step of the averaged weights that every validation uses."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"
    """CPU threads; auto: one per core here, the trial's share inside a sweep."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the networks' arithmetic; losses and weights stay float32. auto: bfloat16 if the hardware has it."""
    channels_last: Literal["auto"] | bool = "auto"
    compile: Literal["auto"] | bool = "auto"
    """torch.compile of the networks; minutes before the first step. auto: no."""
    deterministic: bool = True
    """Repeatable bit for bit on the same machine with the same number of threads."""

    @model_validator(mode="after")
    def _possible_with_this_update(self) -> Self:
        if self.update == "simultaneous" and self.discriminator_steps > 1:
            raise ValueError(
                "update: simultaneous has a single discriminator pass, so discriminator_steps must be 1, "
                f"but got {self.discriminator_steps}; use update: joint"
            )
        if self.balance and self.update.startswith("per_term"):
            raise ValueError(f"balance needs update: joint or simultaneous, but got {self.update}")
        return self


class EvaluateConfig(Config):
    """When and with how much data a trial is validated."""

    every: Steps
    """Steps between validations. The last step is always evaluated."""
    also_at: tuple[Steps, ...] = ()
    """Further steps to validate at, ascending: early rungs without as many validations later on."""
    num_test: Annotated[int, Field(ge=2, le=10**6)] = 1024
    """Test frames for reconstruction, evenly spread; all of them when there are fewer."""
    num_samples: Annotated[int, Field(ge=4, le=10**6)] = 2000
    """Prior samples, from the same z in every evaluation of every trial; as many samples of the fitted density, and
    reconstructions of training frames to compare them with."""
    density_components: Annotated[int, Field(ge=1, le=100)] = 1
    """Gaussians in the density that is fitted to z of training frames, for samples (Ghosh et al. 2020, sec. 4); at most
    as many as num_samples."""
    batch_size: Annotated[int, Field(ge=1, le=2**16)] = 128
    inception_weights: str | None = None
    """torch-fidelity's file of Inception weights, relative to where the command runs; with it the last validation has
    `val/samples_fid` too, which takes minutes on a CPU. Null: without."""


class TrialConfig(Config):
    """One VAE-GAN, one training."""

    frames: str
    """Directory of the frame set, relative to where the command runs."""
    model: ModelConfig
    loss: LossConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig
    evaluate: EvaluateConfig

    def evaluates(self, step: int) -> bool:
        """Whether the trial is validated after this number of steps."""
        evaluate = self.evaluate
        return step % evaluate.every == 0 or step == self.train.steps or step in evaluate.also_at

    @property
    def resolved(self) -> bool:
        """Whether no setting is `auto` any more."""
        train = self.train
        return "auto" not in (train.device, train.threads, train.precision, train.channels_last, train.compile)

    def dump(self) -> dict[str, Any]:
        """Plain nested dictionary, ready for YAML."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_yaml(self) -> str:
        """YAML that `load_trial` reads back as the same trial."""
        return dump_yaml(self.dump())


# --- Rules between the parts ------------------------------------------------------------------------------------------

RULES: list[Rule] = []


@rule(RULES, "model", "loss")
def _penalties_need_single_images(model: ModelConfig, loss: LossConfig) -> Iterator[Problem]:
    for name, weight in (("r1", loss.discriminator.r1), ("r2", loss.discriminator.r2)):
        if weight and model.discriminator.mixes_batch:
            yield (
                f"loss.discriminator.{name}",
                "is the gradient of D at one image, which batch norm mixes with the others of its "
                f"batch; set {name} to 0, but got {weight}, or choose another model.discriminator.norm",
            )


@rule(RULES, "loss")
def _r2_needs_fake_images(loss: LossConfig) -> Iterator[Problem]:
    weights = loss.discriminator
    if weights.r2 and not (weights.recon or weights.prior):
        yield (
            "loss.discriminator.r2",
            "is averaged over fake images by their weights; give loss.discriminator.recon or prior a weight above 0, "
            f"or set r2 to 0, but got {weights.r2}",
        )


@rule(RULES, "loss", "train")
def _balance_needs_separate_losses(loss: LossConfig, train: TrainConfig) -> Iterator[Problem]:
    if train.balance and loss.adversarial == "relativistic":
        yield (
            "train.balance",
            "compares D's losses on real and on fake images, which loss.adversarial relativistic does not have apart; "
            "remove it, or choose another loss.adversarial",
        )


@rule(RULES, "model", "loss")
def _patches_are_judged_by_their_head(model: ModelConfig, loss: LossConfig) -> Iterator[Problem]:
    has_head, weight = model.discriminator.patch_head, loss.heads.patch
    if has_head and not weight:
        yield (
            "loss.heads.patch",
            "must be above 0 to train the patch head, but got 0; or set model.discriminator.patch_head to false",
        )
    if weight and not has_head:
        yield "loss.heads.patch", f"needs model.discriminator.patch_head: true above 0, but got {weight:g} without it"


@rule(RULES, "model", "loss")
def _deterministic_kl_is_of_the_batch(model: ModelConfig, loss: LossConfig) -> Iterator[Problem]:
    kl = loss.kl
    if model.encoder.deterministic and kl.estimator == "sample" and not (kl.control == "fixed" and kl.beta == 0):
        yield (
            "model.encoder.deterministic",
            "has no posterior variance, so the KL of each image is infinite; "
            "set loss.kl.estimator to batch, or loss.kl to {control: fixed, beta: 0}",
        )


@rule(RULES, "model", "loss", "train")
def _full_covariance_needs_many_images(model: ModelConfig, loss: LossConfig, train: TrainConfig) -> Iterator[Problem]:
    if model.encoder.deterministic and loss.kl.estimator == "full_batch" and train.batch_size <= model.latent_dim:
        yield (
            "loss.kl.estimator",
            "full_batch of a deterministic encoder needs train.batch_size > model.latent_dim, because the covariance "
            f"of fewer images is singular and its KL infinite; but got {train.batch_size} and {model.latent_dim}",
        )


@rule(RULES, "loss")
def _late_start_needs_pixels(loss: LossConfig) -> Iterator[Problem]:
    if loss.start and not loss.pixel.weight:
        yield (
            "loss.start",
            "leaves only loss.pixel to teach the decoder until then; give loss.pixel.weight a value above 0, "
            f"or set start to 0, but got {loss.start}",
        )


@rule(RULES, "loss")
def _optimal_weight_is_of_log_mse(loss: LossConfig) -> Iterator[Problem]:
    if loss.kl.control == "optimal" and not (loss.pixel.kind == "log_mse" and loss.pixel.weight):
        yield (
            "loss.kl.control",
            "optimal needs loss.pixel.kind log_mse and loss.pixel.weight > 0, "
            f"but got {loss.pixel.kind} and {loss.pixel.weight}",
        )


@rule(RULES, "evaluate", "train")
def _validates_within_the_training(evaluate: EvaluateConfig, train: TrainConfig) -> Iterator[Problem]:
    steps = list(evaluate.also_at)
    if steps != sorted(set(steps)) or (steps and steps[-1] >= train.steps):
        yield "evaluate.also_at", f"must be ascending steps below train.steps {train.steps}, but got {steps}"


@rule(RULES, "evaluate")
def _density_is_of_the_samples(evaluate: EvaluateConfig) -> Iterator[Problem]:
    components, samples = evaluate.density_components, evaluate.num_samples
    if components > samples:
        yield (
            "evaluate.density_components",
            f"must be at most evaluate.num_samples {samples}, as many training frames it is fitted to, but got "
            f"{components}",
        )


@rule(RULES, "model")
def _deterministic_has_no_variance(model: ModelConfig) -> Iterator[Problem]:
    if model.encoder.deterministic and model.encoder.logvar_limit is not None:
        yield "model.encoder.logvar_limit", "bounds a variance that model.encoder.deterministic does not have"


@rule(RULES, "loss")
def _adaptive_weighting_needs_a_reconstruction(loss: LossConfig) -> Iterator[Problem]:
    if loss.generator.weighting == "adaptive" and not (loss.pixel.weight or loss.feature.recon):
        yield (
            "loss.generator.weighting",
            "adaptive compares with the gradient of the reconstruction; "
            "give loss.pixel.weight or loss.feature.recon a weight above 0",
        )


@rule(RULES, "loss", "train")
def _adaptive_weighting_needs_one_pass(loss: LossConfig, train: TrainConfig) -> Iterator[Problem]:
    if loss.generator.weighting == "adaptive" and train.update.startswith("per_term"):
        yield (
            "train.update",
            "must be joint or simultaneous, because loss.generator.weighting adaptive compares gradients of one pass, "
            f"but got {train.update}",
        )


def parse_trial(data: Mapping[str, Any], what: str = "trial") -> TrialConfig:
    """A TrialConfig, with RULES checked, from nested plain data. Raises ConfigError with every problem."""
    parts, problems = valid_parts(TrialConfig, data)
    if problems := problems + violations(RULES, parts):
        raise ConfigError(what, problems)
    return TrialConfig.model_construct(**parts)


def load_trial(path: Path | str, overrides: Iterable[str] = ()) -> TrialConfig:
    """TrialConfig from a YAML file with `a.b=c` overrides applied."""
    data = load_yaml(path)
    for assignment in overrides:
        set_override(data, assignment)
    return parse_trial(data, str(path))
