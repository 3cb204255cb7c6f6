"""TrialConfig: the whole of one trial, validated. Frozen; an unknown key is an error; required means no default.

Conventions (see README, "What the numbers mean"): images are in [-1, 1]; KL is in nats, summed over latent
dimensions and averaged over the batch; reconstruction errors are means over pixels and channels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails

Norm = Literal["none", "batch", "instance", "group", "layer"]
GradientTarget = Literal["autoencoder", "decoder"]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
AdamBeta = Annotated[float, Field(ge=0, lt=1)]


class ConfigError(ValueError):
    """Every problem of one configuration at once. `problems` are (dotted path, message) pairs."""

    def __init__(self, what: str, problems: Iterable[tuple[str, str]]) -> None:
        self.what = what
        self.problems = list(problems)
        lines = [f"  {path}: {message}" if path else f"  {message}" for path, message in self.problems]
        count = f"{len(lines)} error" + ("s" if len(lines) != 1 else "")
        super().__init__(f"{what} has {count}:\n" + "\n".join(lines))


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


# --- Networks ---------------------------------------------------------------------------------------------------------


class NetworkConfig(Config):
    spectral_norm: bool = False
    """Spectral norm on every layer (Miyato et al. 2018)."""


class EncoderConfig(NetworkConfig):
    norm: Norm = "instance"
    """Instance norm makes the posterior mean blind to an image's colour offset (MEASURES 3)."""
    deterministic: bool = False
    """z is a linear map of the features, without bias and without variance; the KL is then that of batch moments."""
    latent_norm: Literal["none", "batch"] = "none"
    """Batch norm over the posterior mean, without scale and shift; with `deterministic` the author's "BN cheat"."""
    logvar_limit: Positive | None = None
    """|log variance| stays below it: limit * tanh(raw / limit). Null: unbounded."""


class DecoderConfig(NetworkConfig):
    norm: Norm = "instance"
    activation: Literal["relu", "leaky_relu"] = "relu"


class DiscriminatorConfig(NetworkConfig):
    norm: Norm = "none"
    feature_activation: Literal["none", "relu", "leaky_relu"] = "none"
    """Between the convolutions whose last output is the feature map; the seed has none."""
    feature_layer: Annotated[int, Field(ge=0)] | None = None
    """Convolution whose output is the feature map, from 0; null: the last one, as in the seed."""
    feature_norm: Norm = "none"
    """At the end of the feature map, seen by the loss and by the layers behind it."""

    @property
    def mixes_batch(self) -> bool:
        return "batch" in (self.norm, self.feature_norm)


class ModelConfig(Config):
    latent_dim: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=2, multiple_of=2)]
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
    estimator: Literal["sample", "batch"] = "sample"
    """sample: KL(q(z|x) || N(0, I)) of each image; batch: KL of the Gaussian with the moments of z over the batch."""
    momentum: AdamBeta = 0.0
    """Of the moments under `batch`: weight of the old moments, so that the gradient carries 1 - momentum."""
    free_bits: Weight = 0.0
    """Nats per latent dimension that cost nothing (Kingma et al. 2016, eq. 15)."""
    per_dimension: bool = False
    """The constants of the control are for a KL averaged over the L latent dimensions, as the seed author's. In nats
    that is beta / L, gamma / L, capacity_max * L, target * L, and for the linear law rate / L^2 (MEASURES 3)."""

    @model_validator(mode="after")
    def _momentum_of_something(self) -> Self:
        if self.momentum and self.estimator == "sample":
            raise ValueError(f"momentum belongs to estimator: batch, but got {self.momentum} and estimator: sample")
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
        _exactly_one(self, "beta", "sigma")
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
        _exactly_one(self, "gamma", "gamma_sigma")
        return self


class AdaptiveBetaConfig(KLControlConfig):
    """beta follows KL towards `target` (Peng et al. 2019, eq. 9-10, and a law on log beta)."""

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


KLConfig = Annotated[FixedBetaConfig | CapacityConfig | AdaptiveBetaConfig, Field(discriminator="control")]


class DiscriminatorLossConfig(Config):
    """Weights of the three kinds of image in the discriminator's loss; 1 : 1/2 : 1/2 makes chance D(x) one half."""

    real: Weight = 1.0
    recon: Weight = 0.5
    prior: Weight = 0.5
    r1: Weight = 0.0
    """Gamma of the penalty gamma/2 |grad D(x)|^2 on real images (Mescheder et al. 2018, eq. 9)."""
    r1_every: Annotated[int, Field(ge=1)] = 16
    """Steps between penalties, each weighted by their distance (Karras et al. 2020, sec. 3.1)."""
    augment: Literal["none", "color", "translation", "all"] = "none"
    """Differentiable augmentation of whatever D sees (Zhao et al. 2020); all: color, translation and cutout."""


class GeneratorLossConfig(Config):
    recon: Weight = 1.0
    prior: Weight = 1.0
    weighting: Literal["fixed", "adaptive"] = "fixed"
    """adaptive: times the ratio of the reconstruction's gradient to the GAN's at the last layer (Esser et al. 2021,
    eq. 7)."""
    gradient: GradientTarget = "decoder"
    """Whom the adversarial gradient of reconstructions reaches; the seed's code: the decoder only."""


class FeatureLossConfig(Config):
    recon: Weight = 1.0
    prior: Weight = 0.0
    """Paired feature matching on prior samples, as the seed has it; it rewards collapse (MEASURES 3)."""
    prior_matching: Literal["paired", "moments"] = "paired"
    """moments: the batch means of the features are matched instead (Salimans et al. 2016, sec. 3.1)."""
    scale_free: bool = True
    """Divide by the detached variance of the real features, so that the weight carries over between widths."""
    gradient: GradientTarget = "autoencoder"


class PixelLossConfig(Config):
    weight: Weight = 0.0
    """0 as in the seed: tracked, not optimised."""
    kind: Literal["mse", "l1", "bce"] = "mse"
    """bce: binary cross-entropy of images mapped to [0, 1]."""
    scale_free: bool = True
    """Divide mse by the variance of the training frames (l1 by their standard deviation, bce by nothing)."""


class LossConfig(Config):
    adversarial: Literal["bce", "hinge", "lsgan"] = "bce"
    discriminator: DiscriminatorLossConfig = DiscriminatorLossConfig()
    generator: GeneratorLossConfig = GeneratorLossConfig()
    feature: FeatureLossConfig = FeatureLossConfig()
    pixel: PixelLossConfig = PixelLossConfig()
    kl: KLConfig


# --- Training ---------------------------------------------------------------------------------------------------------


class AutoencoderOptimizerConfig(Config):
    lr: Positive = 1e-4
    beta1: AdamBeta = 0.9
    beta2: AdamBeta = 0.999
    weight_decay: Weight = 0.0
    """Decoupled from the gradient (Loshchilov & Hutter 2019); per step, times the learning rate."""


class DiscriminatorOptimizerConfig(Config):
    lr_ratio: Positive = 1.0
    """Learning rate as a multiple of the autoencoder's."""
    beta1: AdamBeta = 0.9
    beta2: AdamBeta = 0.999
    weight_decay: Weight = 0.0


class OptimizerConfig(Config):
    autoencoder: AutoencoderOptimizerConfig = AutoencoderOptimizerConfig()
    discriminator: DiscriminatorOptimizerConfig = DiscriminatorOptimizerConfig()
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of train.steps over which both learning rates rise linearly from 0."""
    decay: Literal["none", "linear", "cosine"] = "none"
    """Of both learning rates to 0 at train.steps. A constant rate keeps rungs and extended trials comparable."""


class BalanceConfig(Config):
    """Loss-balanced updates (Larsen et al. 2016, their code): D rests while its loss on real or fake images is below
    equilibrium - margin, the decoder rests while one is above equilibrium + margin; when both would rest, neither does.
    """

    equilibrium: Positive
    margin: Weight


class TrainConfig(Config):
    steps: Annotated[int, Field(ge=1)]
    """Training steps of full fidelity."""
    update: Literal["joint", "simultaneous", "per_term", "per_term_stale"] = "joint"
    """joint: one Adam step per network, D first. simultaneous: the same from a single discriminator pass. per_term: one
    Adam step per loss term on fresh passes (the author's code of 2019-04-25); stale: all from one pass, as before."""
    discriminator_steps: Annotated[int, Field(ge=1)] = 1
    """Discriminator updates per step, each on a batch of its own."""
    balance: BalanceConfig | None = None
    """Null: every network is updated in every step."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    log_every: Annotated[int, Field(ge=1)] = 20
    """Steps per curve point; a point is the mean over them."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay per step of the averaged weights that every validation uses."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """CPU threads; auto: one per core here, the trial's share inside a sweep."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the networks' arithmetic; losses and weights stay float32. auto: bfloat16 where the device has it."""
    channels_last: Literal["auto"] | bool = "auto"
    compile: Literal["auto"] | bool = "auto"
    """torch.compile of the networks; minutes before the first step. auto: no."""
    deterministic: bool = True
    """Bit-for-bit repeatable on the same machine with the same number of threads."""

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
    every: Annotated[int, Field(ge=1)]
    """Steps between validations. The last step is always evaluated."""
    num_test: Annotated[int, Field(ge=2)] = 1024
    """Test frames for reconstruction, evenly spread; all of them when there are fewer."""
    num_samples: Annotated[int, Field(ge=2)] = 2000
    """Prior samples for `val/samples_fd`, from the same z in every evaluation of every trial."""
    batch_size: Annotated[int, Field(ge=1)] = 128
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

    @model_validator(mode="after")
    def _parts_fit_each_other(self) -> Self:
        refuse(_misfits(self.model, self.loss, self.train))
        return self

    @property
    def resolved(self) -> bool:
        train = self.train
        return "auto" not in (train.device, train.threads, train.precision, train.channels_last, train.compile)

    def dump(self) -> dict[str, Any]:
        """Plain nested dictionary, ready for YAML."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_yaml(self) -> str:
        return dump_yaml(self.dump())


FITS_ALL: dict[str, Any] = {
    "frames": "",
    "model": {"latent_dim": 1, "width": 2},
    "loss": {"kl": {"control": "fixed", "beta": 0}},
    "train": {"steps": 1},
    "evaluate": {"every": 1},
}
"""Parts of a trial that have no misfit, whatever the others are."""


def _misfits(model: ModelConfig, loss: LossConfig, train: TrainConfig) -> Iterator[tuple[str, str]]:
    """What networks, losses and updates that are each valid cannot do together."""
    if loss.discriminator.r1 and model.discriminator.mixes_batch:
        yield (
            "loss.discriminator.r1",
            "is the gradient of D at one image, which batch norm mixes with the others of its "
            f"batch; set r1 to 0, but got {loss.discriminator.r1}, or choose another model.discriminator.norm",
        )
    kl = loss.kl
    weightless = isinstance(kl, FixedBetaConfig) and kl.beta == 0
    if model.encoder.deterministic and kl.estimator == "sample" and not weightless:
        yield (
            "model.encoder.deterministic",
            "has no posterior variance, so the KL of each image is infinite; "
            "set loss.kl.estimator to batch, or loss.kl to {control: fixed, beta: 0}",
        )
    if model.encoder.deterministic and model.encoder.logvar_limit is not None:
        yield "model.encoder.logvar_limit", "bounds a variance that model.encoder.deterministic does not have"
    if loss.generator.weighting == "adaptive" and not (loss.pixel.weight or loss.feature.recon):
        yield (
            "loss.generator.weighting",
            "adaptive compares with the gradient of the reconstruction; "
            "give loss.pixel.weight or loss.feature.recon a weight above 0",
        )
    if loss.generator.weighting == "adaptive" and train.update.startswith("per_term"):
        yield (
            "train.update",
            "must be joint or simultaneous, for loss.generator.weighting adaptive compares gradients of one pass, "
            f"but got {train.update}",
        )


def refuse(misfits: Iterable[tuple[str, str]]) -> None:
    """Makes each of these (dotted path, message) pairs an error of its own of the model that is being validated."""
    errors = [
        InitErrorDetails(type="value_error", loc=tuple(path.split(".")), input=None, ctx={"error": message})
        for path, message in misfits
    ]
    if errors:
        raise ValidationError.from_exception_data("misfits", errors)


def _exactly_one(config: BaseModel, *names: str) -> None:
    given = [name for name in names if getattr(config, name) is not None]
    if len(given) != 1:
        raise ValueError(f"exactly one of {' and '.join(names)} must be given, but got {' and '.join(given) or 'none'}")


# --- YAML in, errors out ----------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML 1.2 numbers and booleans (1e-4 is a number, `off` is a string); a repeated key is an error."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:bool")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)$|^[-+]?([0-9]*\.[0-9]+|[0-9]+\.)$|^[-+]?\.inf$|^\.nan$"
    ),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|false|False)$"), list("tTfF"))


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            problem = "a key must be a plain value; quote a value that begins with a bracket or brace"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _unique_mapping)


def parse_yaml(text: str, what: str = "YAML") -> Any:
    """Plain data from YAML text. Raises ConfigError with the line of a syntax error."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else ""
        raise ConfigError(what, [(where, getattr(error, "problem", None) or str(error))]) from None


class _Dumper(yaml.SafeDumper):
    """Quotes every string that a reader of YAML 1.1 or of 1.2 would take for something else."""


_Dumper.yaml_implicit_resolvers = {
    first: [*_Loader.yaml_implicit_resolvers.get(first, []), *yaml.SafeLoader.yaml_implicit_resolvers.get(first, [])]
    for first in _Loader.yaml_implicit_resolvers.keys() | yaml.SafeLoader.yaml_implicit_resolvers.keys()
}


def dump_yaml(data: Any) -> str:
    """YAML text that `parse_yaml`, and any other reader of YAML, turns back into the same plain data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False)


def load_yaml(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError when it is missing, not YAML or not a mapping."""
    path = Path(path)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(str(path), [("", f"cannot be read: {reason}")]) from None
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        got = "nothing" if data is None else type(data).__name__
        raise ConfigError(str(path), [("", f"must hold a mapping of keys, but got {got}")])
    return data


def set_override(data: dict[str, Any], assignment: str) -> None:
    """Applies `a.b.c=value` (the value is YAML) to nested `data` in place."""
    path, separator, text = assignment.partition("=")
    if not separator or not all(path.strip().split(".")):
        raise ConfigError(f"--set {assignment}", [("", "must look like key.subkey=value")])
    set_value(data, path.strip(), parse_yaml(text, f"--set {assignment}"), f"--set {assignment}")


def set_value(data: dict[str, Any], path: str, value: Any, what: str) -> None:
    """Puts `value` at dotted `path` of nested `data`, in place; `what` is who wants it, for the error.

    A key that itself holds dots (`loss.kl.sigma` under `space`) is matched before a new level is opened.
    """
    parts = path.split(".")
    node: Any = data
    while True:
        if not isinstance(node, dict):
            raise ConfigError(what, [(path, "leads through a value that is not a mapping")])
        match = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in node), None)
        if match == len(parts) or (match is None and len(parts) == 1):
            node[".".join(parts)] = value
            return
        if match is None:
            node[parts[0]] = {}
            match = 1
        node, parts = node[".".join(parts[:match])], parts[match:]


def problems_of(error: ValidationError, data: Any) -> list[tuple[str, str]]:
    """Pydantic's findings about `data` as (dotted path, message that shows the value) pairs."""
    rules: dict[tuple[str, str], list[str]] = {}  # The alternatives of a union by (path, what was got)
    for item in error.errors(include_url=False):
        path, context = _path_in_yaml(item["loc"], item["type"], data), item.get("ctx", {})
        tag = f"{path}.{context.get('discriminator', '')}".replace("'", "")
        rule, got = re.sub(r"^\w+ should ", "must ", item["msg"]), f", but got {item['input']!r}"
        match item["type"]:
            case "missing":
                rule, got = "is required, but is not given", ""
            case "extra_forbidden":
                rule, got = "is not a key here; check its spelling", ""
            case "union_tag_not_found":
                path, rule, got = tag, "is required, but is not given", ""
            case "union_tag_invalid":
                path, rule = tag, f"must be one of {context['expected_tags']}"
                got = f", but got {context['tag']!r}"
            case "model_type" | "dict_type" | "model_attributes_type":
                rule = "must be a mapping of keys"
            case "value_error":
                rule, got = item["msg"].removeprefix("Value error, "), ""
        rules.setdefault((path, got), []).append(re.sub(r", (unable to|got a number) .*", "", rule))
    return [
        (path, " or ".join([first, *(rule.removeprefix("must be ") for rule in others if rule != first)]) + got)
        for (path, got), (first, *others) in rules.items()
    ]


def problems_and_misfits(
    error: ValidationError, model: type[Config], data: Any, fits_all: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """The findings of `error` about `data`, and the misfits between those parts of it that are right by themselves.

    In place of the other parts stand those of `fits_all`, which have no misfit with anything, or the defaults.
    """
    problems = problems_of(error, data)
    wrong = {item["loc"][0] for item in error.errors(include_url=False) if item["loc"]}
    if not wrong:
        return problems
    parts = {key: value for key, value in data.items() if key in model.model_fields and key not in wrong}
    try:
        model.model_validate(parts | {key: value for key, value in fits_all.items() if key in wrong})
    except ValidationError as misfits:
        problems += problems_of(misfits, data)
    return problems


def _path_in_yaml(location: tuple[int | str, ...], kind: str, data: Any) -> str:
    """Pydantic's location as a user wrote it: the members of unions that pydantic names are no keys of `data`."""
    path, node = [], data
    for index, part in enumerate(location):
        known = part in node if isinstance(node, Mapping) else isinstance(node, list | tuple) and isinstance(part, int)
        if known:
            path.append(str(part))
            node = node[part]
        elif kind == "missing" and index == len(location) - 1:
            path.append(str(part))
    return ".".join(path)


def parse_trial(data: Mapping[str, Any], what: str = "trial") -> TrialConfig:
    """Strict TrialConfig from nested plain data. Raises ConfigError with every problem."""
    try:
        return TrialConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(what, problems_and_misfits(error, TrialConfig, data, FITS_ALL)) from None


def load_trial(path: Path | str, overrides: Iterable[str] = ()) -> TrialConfig:
    """TrialConfig from a YAML file with `a.b=c` overrides applied."""
    data = load_yaml(path)
    for assignment in overrides:
        set_override(data, assignment)
    return parse_trial(data, str(path))


def weight_of_sigma(sigma: float, num_values: int, variance: float) -> float:
    """KL weight in nats that decoder standard deviation `sigma` stands for, beside a scale-free pixel loss of weight 1.

    -log N(x; x_recon, sigma^2) = N MSE / (2 sigma^2) + const, so MSE / Var x + beta KL is the negative ELBO up to scale
    for beta = 2 sigma^2 / (N Var x); N = 3 H W is `num_values`, Var x of the training frames is `variance`.
    """
    return 2.0 * sigma**2 / (num_values * variance)
