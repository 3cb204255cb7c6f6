"""TrialConfig: the whole of one trial, validated. Frozen; an unknown key is an error; required means no default.

Conventions (vaegan_core/README.md): images are in [-1, 1]; KL is in nats, summed over latent
dimensions and averaged over the batch; reconstruction errors are means over pixels and channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vaegan_core.config.loss import LossConfig
from vaegan_core.config.model import ModelConfig
from vaegan_core.config.training import EvaluateConfig, OptimizerConfig, TrainConfig
from vaegan_core.problems import Config, ConfigError, Problem, Rule, rule, valid_parts, violations
from vaegan_core.strict_yaml import dump_yaml, load_yaml, set_override


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
