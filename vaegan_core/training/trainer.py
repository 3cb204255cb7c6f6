"""The trainer of one VAE-GAN: exact, resumable, reporting through one callable."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from vaegan_core.config.training import OptimizerConfig
from vaegan_core.config.trial import TrialConfig, parse_trial
from vaegan_core.data.batches import TrainBatches, evenly_spaced, image_blocks
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import Evaluation, Outcome
from vaegan_core.losses.kl_control import kl_bound, make_kl_term
from vaegan_core.metrics.diagnoses import diagnose
from vaegan_core.metrics.evaluator import Evaluator
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.model.averaging import update_average
from vaegan_core.model.latent_density import LatentDensity, density_of
from vaegan_core.model.networks import Autoencoder, Discriminator
from vaegan_core.model.sizes import check_size
from vaegan_core.problems import reason
from vaegan_core.tensor_files import flatten_state, load_tensors, save_tensors, strip_prefix
from vaegan_core.training.curves import CurveLog, shares
from vaegan_core.training.joint import Joint
from vaegan_core.training.machine import wishing
from vaegan_core.training.per_term import PerTerm, PerTermStale
from vaegan_core.training.runtime import runtime
from vaegan_core.training.simultaneous import Simultaneous
from vaegan_core.training.update import Draw, Update

UPDATES: dict[str, type[Update]] = {
    "joint": Joint,
    "simultaneous": Simultaneous,
    "per_term": PerTerm,
    "per_term_stale": PerTermStale,
}

EVALUATIONS = "evaluations"
"""Prefix of the evaluations of the training in a checkpoint, by step."""
MAX_DENSITY_FRAMES = 20_000
"""Training frames behind the density that is stored with a model."""

Report = Callable[[Evaluation], None]


def _silent(step: int) -> None:
    """No progress shown."""


class Trainer:
    """One training of `config` (resolved) on `frame_set`, measured with `features`."""

    def __init__(self, config: TrialConfig, frame_set: FrameSet, features: FrameFeatures) -> None:
        """Builds networks, optimizers and measurements from the seed of the configuration.

        Raises ValueError for a configuration that still holds `auto`, or frames too small for the model.
        """
        if not config.resolved:
            raise ValueError("the trainer needs a configuration without `auto`; pass it through resolve() first")
        size = (frame_set.manifest.height, frame_set.manifest.width)
        check_size(config, size)
        self.config = config
        self.frame_set = frame_set
        self.device = torch.device(config.train.device)
        self.step = 0
        bfloat16 = config.train.precision == "bfloat16"
        self._autocast = partial(torch.autocast, self.device.type, torch.bfloat16, enabled=bfloat16)
        """Not a method: held by what the trainer holds, it would keep the trainer alive until a garbage collection."""

        # Networks, from the trial's own seed; the caller's random state stays as it was.
        memory_format = torch.channels_last if config.train.channels_last else torch.contiguous_format
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.train.seed)
            self.autoencoder = Autoencoder(config.model, size, self._seed_apart)
            self._seed_apart("discriminator")
            self.discriminator = Discriminator(config.model, size)
        for network in (self.autoencoder, self.discriminator):
            network.to(self.device)
            network.to(memory_format=memory_format)
        self.averaged = copy.deepcopy(self.autoencoder).eval().requires_grad_(False)
        """The autoencoder with averaged (EMA) weights: what is validated, kept and served."""
        if config.train.compile:
            for part in (self.autoencoder.encoder, self.autoencoder.decoder, self.discriminator):
                part.compile()

        # Data, noise, losses, measurements.
        train = config.train
        self.batches = TrainBatches(frame_set.train, train.batch_size, train.seed, self.device, train.horizontal_flip)
        self.generator = torch.Generator(self.device).manual_seed(config.train.seed)
        self.variance = features.baselines["train_variance"]
        self.kl = make_kl_term(
            config.loss,
            latent_dim=config.model.latent_dim,
            num_values=3 * size[0] * size[1],
            variance=self.variance,
            steps=config.train.steps,
            device=self.device,
        )
        self.update = UPDATES[config.train.update](
            config, self.autoencoder, self.discriminator, self.kl, self.variance, self.generator, self._autocast
        )
        self._learning_rates = [optimizer.param_groups[0]["lr"] for optimizer in self.update.optimizers.values()]
        self.evaluator = Evaluator(
            config.evaluate, frame_set, features, config.model.latent_dim, self.device, self._autocast
        )

        self.history: list[tuple[int, dict[str, float]]] = []
        """(step, metrics and shares) of every evaluation so far, which the diagnoses look back on."""
        self.curves = CurveLog(config.train.batch_size)
        self._saved: dict[int, bytes] = {}
        """By step, every Evaluation that a checkpoint has been saved with, in its byte form."""

    def _seed_apart(self, network: str) -> None:
        """Begins a random stream of its own for the weights of a network, if that is wanted."""
        if self.config.train.seeding == "separate":
            torch.manual_seed(stream_seed(self.config.train.seed, network))

    # --- One step -----------------------------------------------------------------------------------------------------

    def train_step(self) -> None:
        """One step of every network, by the scheme `train.update`. Call it inside `runtime`, as `run` does."""
        factor = lr_factor(self.config.optimizer, self.step, self.config.train.steps)
        for optimizer, lr in zip(self.update.optimizers.values(), self._learning_rates, strict=True):
            optimizer.param_groups[0]["lr"] = factor * lr
        if self.config.train.seeding == "separate":
            self.generator.manual_seed(stream_seed(self.config.train.seed, f"noise {self.step}"))
        num_draws = self.config.train.discriminator_steps
        draws = [self._draw(self.step * num_draws + index) for index in range(num_draws)]
        values = self.update.step(draws, self.step, self._makes_point(self.step + 1))
        values |= self.kl.curves(self.step)
        update_average(self.averaged, self.autoencoder, self.config.train.ema_decay if self.step else 0.0)
        self.step += 1
        self.curves.add_step(values)

    def _draw(self, index: int) -> Draw:
        x = self.batches[index]
        shape = (len(x), self.config.model.latent_dim)
        noise, z_prior = (torch.randn(shape, generator=self.generator, device=self.device) for _ in range(2))
        return Draw(x, noise, z_prior)

    def _makes_point(self, step: int) -> bool:
        """Whether the curves get a point after `step` steps."""
        return step % self.config.train.log_every == 0 or self.config.evaluates(step)

    # --- The whole training -------------------------------------------------------------------------------------------

    def run(
        self,
        report: Report,
        *,
        checkpoint: Path | None = None,
        progress: Callable[[int], None] = _silent,
        since: int | None = None,
        until: int | None = None,
    ) -> None:
        """Trains to the last step, or to step `until`, which then has no evaluation that it would not have anyway.
        Every Evaluation goes to `report`; what `report` raises ends the training.

        With `checkpoint`, the state is saved there before each report. If the file exists already, training continues
        from it, and evaluations saved with it are reported again, so that no report is ever lost: those from step
        `since` on, at least the last one. `progress` gets the step after every curve point.
        """
        config = self.config
        with self.runtime():
            if checkpoint is not None and checkpoint.exists():
                evaluations = self.load(checkpoint)
                lost = [each for each in evaluations if since is not None and each.step >= since]
                for evaluation in lost or evaluations[-1:]:
                    report(evaluation)
            self.curves.restart_clock()
            while self.step < min(config.train.steps, until or config.train.steps):
                self.train_step()
                if not self._makes_point(self.step):
                    continue
                evaluates = config.evaluates(self.step)
                reason = self.curves.flush(self.step)
                progress(self.step)
                if not reason and not evaluates:
                    continue
                evaluation = self._diverged(reason) if reason else self.evaluate()
                if evaluation.outcome == "diverged":
                    report(evaluation)
                    return
                if checkpoint is not None:
                    self.save(checkpoint, evaluation)
                report(evaluation)
                self.curves.restart_clock()

    def runtime(self) -> AbstractContextManager[None]:
        """Threads and determinism as configured, for steps and evaluations that are not part of `run`."""
        return runtime(self.config.train)

    def evaluate(self) -> Evaluation:
        """Validation of the averaged weights now, with the curve points since the last one. Needs a step before it."""
        if reason := self.curves.flush(self.step):
            return self._diverged(reason)
        model = self.averaged
        completed = self.step == self.config.train.steps
        metrics = self.evaluator.metrics(model, self.discriminator, self.update.terms.score)
        if completed:
            metrics |= self.evaluator.final_metrics(model)
        for key, value in metrics.items():
            if not math.isfinite(value):
                return self._diverged(f"{key} is {value} at step {self.step}")
        self.history.append((self.step, metrics | shares(self.curves.means(), self.update.terms.chance_loss)))
        self.curves.add_points(self.step, metrics)
        outcome: Outcome = "completed" if completed else "running"
        images = self.evaluator.images(model) if completed or self._has_grids() else {}
        points = self.curves.take_points()
        return Evaluation(self.step, outcome, metrics, points, images, diagnoses=self._diagnoses())

    def _has_grids(self) -> bool:
        """Whether this evaluation has image grids: the first, second, fourth, eighth… of `every` do, and those before,
        so that a long training has few, and one that is stopped early has one from its second half."""
        number = self.step // self.config.evaluate.every
        return number & (number - 1) == 0

    def _diagnoses(self) -> dict[str, bool | None]:
        latent_dim = self.config.model.latent_dim
        loss, start = self.config.loss, self.config.loss.start * self.config.train.steps
        return diagnose(self.history, latent_dim=latent_dim, kl_bound=kl_bound(loss.kl, latent_dim), gan_start=start)

    def _diverged(self, reason: str) -> Evaluation:
        return Evaluation(self.step, "diverged", points=self.curves.take_points(), reason=reason)

    # --- State --------------------------------------------------------------------------------------------------------

    def save(self, path: Path, evaluation: Evaluation) -> None:
        """Writes everything that the next step depends on, the Evaluation made at this one and all before, into one
        file."""
        tensors = flatten_state("autoencoder", self.autoencoder.state_dict())
        tensors |= flatten_state("discriminator", self.discriminator.state_dict())
        tensors |= flatten_state("averaged", self.averaged.state_dict())
        for name, optimizer in self.update.optimizers.items():
            tensors |= flatten_state(f"optimizer/{name}", optimizer.state_dict()["state"])
        tensors |= flatten_state("kl", self.kl.state())
        tensors["generator"] = self.generator.get_state()
        self._saved[evaluation.step] = evaluation.to_bytes()
        tensors |= {
            f"{EVALUATIONS}/{step}": torch.frombuffer(bytearray(data), dtype=torch.uint8)
            for step, data in self._saved.items()
        }
        save_tensors(path, tensors, {"step": self.step, "config": self.config.dump(), "history": self.history})

    def load(self, path: Path, *, of_another: bool = False) -> list[Evaluation]:
        """Continues from a state written by `save`; returns the evaluations stored with it, in order: none of another
        configuration's.

        The state may come from another machine, with other facts (machine.py); noise that another kind of device drew
        is then drawn anew. Raises DamagedCheckpoint for a damaged file, and ValueError for a state of another
        configuration, unless it may be `of_another`, whose networks have the same shape.
        """
        tensors, metadata = load_tensors(path)
        saved = parse_trial(metadata["config"], str(path))  # keys added since have a default
        if not of_another and wishing(saved, {}).dump() != wishing(self.config, {}).dump():
            raise ValueError(f"{path} was written with another configuration; remove it, or train with that one")
        if saved.model != self.config.model:
            raise ValueError(f"{path} holds networks of another `model`; continue with the same one")
        self.autoencoder.load_state_dict(strip_prefix("autoencoder", tensors))
        self.discriminator.load_state_dict(strip_prefix("discriminator", tensors))
        self.averaged.load_state_dict(strip_prefix("averaged", tensors))
        for name, optimizer in self.update.optimizers.items():
            _load_adam(optimizer, strip_prefix(f"optimizer/{name}", tensors))
        self.kl.load_state(strip_prefix("kl", tensors))
        self.step = metadata["step"]
        self._continue_noise(tensors["generator"])
        self.history = [(step, metrics) for step, metrics in metadata["history"]]
        stored = {int(step): data for step, data in strip_prefix(EVALUATIONS, tensors).items()}
        if "evaluation" in tensors:  # of a version that kept the last one only
            stored[self.step] = tensors["evaluation"]
        self._saved = {} if of_another else {step: stored[step].numpy().tobytes() for step in sorted(stored)}
        return [Evaluation.from_bytes(data) for data in self._saved.values()]

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Begins with these weights of the autoencoder (those that `save_model` writes), everything else being fresh.

        Raises ValueError where they are those of another `model`.
        """
        names = self.autoencoder.state_dict().keys()
        kept = {name: tensor for name, tensor in weights.items() if name in names}
        try:
            self.autoencoder.load_state_dict(kept)
        except RuntimeError as error:
            raise ValueError(f"the weights do not fit the configuration's `model`: {reason(error)}") from None
        self.averaged.load_state_dict(self.autoencoder.state_dict())

    def _continue_noise(self, state: Tensor) -> None:
        """Goes on with a generator's state; one of another kind of device says nothing here, but seed and step do."""
        if state.shape == self.generator.get_state().shape:
            self.generator.set_state(state)
        else:
            self.generator.manual_seed((self.config.train.seed * 1_000_003 + self.step) % 2**63)

    def save_model(self, path: Path) -> None:
        """Writes the averaged autoencoder alone, which is what is promoted and served, and the density of its z."""
        tensors = self.averaged.state_dict() | self._density().tensors()
        size = (self.frame_set.manifest.height, self.frame_set.manifest.width)
        save_tensors(path, tensors, {"step": self.step, "config": self.config.dump(), "size": size})

    @torch.inference_mode()
    def _density(self) -> LatentDensity:
        """The density of z over the training frames, at most 20,000 of them."""
        frames = self.frame_set.train
        chosen = evenly_spaced(len(frames), MAX_DENSITY_FRAMES)
        with self._autocast():
            posteriors = [self.averaged.encoder(images) for images in image_blocks(frames, chosen, self.device)]
        return density_of(posteriors, self.config.evaluate.density_components)


def stream_seed(seed: int, stream: str) -> int:
    """Seed, below 2^63, of one of the independent random streams of a trial with `train.seeding: separate`."""
    return int.from_bytes(hashlib.sha256(f"{seed} {stream}".encode()).digest()[:8], "big") >> 1


def lr_factor(config: OptimizerConfig, step: int, steps: int) -> float:
    """Factor of the learning rates in step number `step` (from 0) of `steps`, in [0, 1].

    Linear warm-up over its share of the steps, times a decay to 0 that is linear or half a cosine (Loshchilov & Hutter
    2017, eq. 5).
    """
    warmup = config.warmup * steps
    factor = min(1.0, (step + 1) / warmup) if warmup else 1.0
    match config.decay:
        case "none":
            return factor
        case "linear":
            return factor * (1.0 - step / steps)
        case "cosine":
            return factor * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def _load_adam(optimizer: Optimizer, flat: dict[str, Tensor]) -> None:
    """Restores Adam's moments, each in the memory layout of its parameter: the fused kernel reads them side by side."""
    for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
        if f"{index}/step" not in flat:
            continue  # no term has reached this parameter yet
        moments = {
            name: torch.empty_like(parameter).copy_(flat[f"{index}/{name}"]) for name in ("exp_avg", "exp_avg_sq")
        }
        optimizer.state[parameter] = {"step": flat[f"{index}/step"].to(parameter.device), **moments}
