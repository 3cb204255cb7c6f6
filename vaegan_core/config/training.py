"""OptimizerConfig, TrainConfig, EvaluateConfig: the settings of optimizers, training loop and validation."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vaegan_core.config.ranges import AdamBeta, Positive, Steps, Weight
from vaegan_core.problems import Config


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
    horizontal_flip: bool = False
    """Training images are mirrored left to right with probability 1/2, anew in every epoch: for long trainings on few
    frames without writing in them. Validation sees the frames as they are."""
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
