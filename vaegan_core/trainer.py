"""The trainer of one VAE-GAN: exact, resumable, reporting through one callable."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.utils.deterministic
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vaegan_core.checkpoint import flatten_state, load_tensors, save_tensors, strip_prefix
from vaegan_core.config import TrialConfig, parse_trial
from vaegan_core.evaluate import Evaluator
from vaegan_core.evaluation import Evaluation, Outcome, Point
from vaegan_core.features import FrameFeatures
from vaegan_core.frames import FrameSet, TrainBatches
from vaegan_core.hardware import cpu_has_bfloat16
from vaegan_core.kl_control import make_kl_control
from vaegan_core.losses import (
    ADVERSARIAL_LOSSES,
    feature_matching_loss,
    feature_scale,
    gaussian_kl_divergence,
    pixel_loss,
)
from vaegan_core.models import Autoencoder, Discriminator, Posterior, downsampled, frozen_statistics, mixes_batch

# Deterministic matrix products on CUDA need this before the first one runs.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

IMAGES_PER_SECOND = "speed/images_per_second"
LOSS_TERMS = (
    "train/kl",
    "train/discriminator_real",
    "train/discriminator_recon",
    "train/discriminator_prior",
    "train/generator_recon",
    "train/generator_prior",
    "train/feature_recon",
    "train/feature_prior",
    "train/pixel",
)
"""The seed's formula, raw (before weights); `train/kl` in nats."""

Report = Callable[[Evaluation], None]

deterministic_mode: Any = torch.utils.deterministic


def _silent(step: int) -> None:
    """No progress shown."""


def resolve(config: TrialConfig, *, threads: int | None = None) -> TrialConfig:
    """The same configuration with every `auto` decided for this machine; what is written down and rerun.

    `threads` is what `auto` threads become (a trial's share in a sweep); None: one per core.
    """
    train = config.train
    device = ("cuda" if torch.cuda.is_available() else "cpu") if train.device == "auto" else train.device
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device is cuda, but torch finds no CUDA device here; set it to cpu or auto")
    bfloat16 = torch.cuda.is_bf16_supported() if device == "cuda" else cpu_has_bfloat16()
    decided = {
        "device": device,
        "threads": (threads or os.cpu_count() or 1) if train.threads == "auto" else train.threads,
        "precision": ("bfloat16" if bfloat16 else "float32") if train.precision == "auto" else train.precision,
        "channels_last": True if train.channels_last == "auto" else train.channels_last,
    }
    return config.model_copy(update={"train": train.model_copy(update=decided)})


class Trainer:
    """One training of `config` (resolved) on `frame_set`, measured with `features`."""

    def __init__(self, config: TrialConfig, frame_set: FrameSet, features: FrameFeatures) -> None:
        if not config.resolved:
            raise ValueError("the trainer needs a configuration without `auto`; pass it through resolve() first")
        size = (frame_set.manifest.height, frame_set.manifest.width)
        check_size(config, size)
        self.config = config
        self.device = torch.device(config.train.device)
        self.step = 0

        # Networks, from the trial's own seed; the caller's random state stays as it was.
        memory_format = torch.channels_last if config.train.channels_last else torch.contiguous_format
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.train.seed)
            self.autoencoder = Autoencoder(config.model, size)
            self.discriminator = Discriminator(config.model, size)
        for network in (self.autoencoder, self.discriminator):
            network.to(self.device)
            network.to(memory_format=memory_format)
        self.ema = AveragedModel(
            self.autoencoder,
            multi_avg_fn=get_ema_multi_avg_fn(config.train.ema_decay),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
        self.ema.eval()

        # Optimizers.
        self.autoencoder_optimizer = _adam(
            self.autoencoder, config.optimizer.autoencoder.lr, config.optimizer.autoencoder
        )
        discriminator_lr = config.optimizer.autoencoder.lr * config.optimizer.discriminator.lr_ratio
        self.discriminator_optimizer = _adam(self.discriminator, discriminator_lr, config.optimizer.discriminator)

        # Data, noise, losses, measurements.
        self.batches = TrainBatches(frame_set.train, config.train.batch_size, config.train.seed, self.device)
        self.generator = torch.Generator(self.device).manual_seed(config.train.seed)
        self.adversarial = ADVERSARIAL_LOSSES[config.loss.adversarial]
        self.variance = features.baselines["train_variance"]
        self.kl_control = make_kl_control(
            config.loss.kl,
            num_values=3 * size[0] * size[1],
            variance=self.variance,
            steps=config.train.steps,
            device=self.device,
        )
        self.evaluator = Evaluator(
            config.evaluate, frame_set, features, config.model.latent_dim, self.device, self._autocast
        )

        # Curve values of the steps since the last point, on the device until they are fetched in one block.
        self._pending: list[dict[str, Tensor | float]] = []
        self._points: list[Point] = []
        self._window_start = time.perf_counter()

    @property
    def averaged(self) -> Autoencoder:
        """The autoencoder with averaged (EMA) weights."""
        module = self.ema.module
        assert isinstance(module, Autoencoder)
        return module

    # --- One step -----------------------------------------------------------------------------------------------------

    def train_step(self) -> None:
        """One Adam step per network from one encoder pass and one decoder pass per latent (DESIGN 4.2)."""
        x = self.batches[self.step]
        batch, latent_dim = len(x), self.config.model.latent_dim
        noise = torch.randn(batch, latent_dim, generator=self.generator, device=self.device)
        z_prior = torch.randn(batch, latent_dim, generator=self.generator, device=self.device)

        with self._autocast():
            posterior = self.autoencoder.encoder(x)
            z = posterior.sample(noise)
            x_recon, x_prior = self._decode(z, z_prior)

        values = self.discriminator_step(x, x_recon.detach(), x_prior.detach())
        values |= self.autoencoder_step(x, posterior, z, x_recon, x_prior)
        values |= self.kl_control.curves(self.step)
        self.ema.update_parameters(self.autoencoder)
        self.step += 1
        self._pending.append(values)

    def _decode(self, z: Tensor, z_prior: Tensor) -> tuple[Tensor, Tensor]:
        """Images of both kinds of latent. With batch norm they share one batch: in validation the decoder has one set
        of statistics for both, and it must be the one it was trained with."""
        decoder = self.autoencoder.decoder
        if mixes_batch(decoder):
            x_recon, x_prior = decoder(torch.cat([z, z_prior])).chunk(2)
            return x_recon, x_prior
        return decoder(z), decoder(z_prior)

    def discriminator_step(self, x: Tensor, x_recon: Tensor, x_prior: Tensor) -> dict[str, Tensor | float]:
        """One Adam step of the discriminator on detached images [n, 3, H, W]; returns its curve values.

        With batch norm each kind of image is a batch of its own, else D could tell the kinds apart by their company.
        """
        weights = self.config.loss.discriminator
        with self._autocast():
            if mixes_batch(self.discriminator):
                logits = [self.discriminator(images)[0] for images in (x, x_recon, x_prior)]
            else:
                logits = list(self.discriminator(torch.cat([x, x_recon, x_prior]))[0].chunk(3))
        real = self.adversarial.real(logits[0])
        recon = self.adversarial.fake(logits[1])
        prior = self.adversarial.fake(logits[2])
        loss = weights.real * real + weights.recon * recon + weights.prior * prior
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.discriminator_optimizer.step()
        probabilities = [torch.sigmoid(each.detach()).mean() for each in logits]
        return {
            "train/discriminator": loss.detach(),
            "train/discriminator_real": real.detach(),
            "train/discriminator_recon": recon.detach(),
            "train/discriminator_prior": prior.detach(),
            "discriminator/probability_real": probabilities[0],
            "discriminator/probability_recon": probabilities[1],
            "discriminator/probability_prior": probabilities[2],
        }

    def autoencoder_step(
        self, x: Tensor, posterior: Posterior, z: Tensor, x_recon: Tensor, x_prior: Tensor
    ) -> dict[str, Tensor | float]:
        """One Adam step of encoder and decoder; returns its curve values.

        Terms are differentiated down to the images first; from there `_backward` takes each term's gradient on to
        the decoder alone or to the whole autoencoder.
        """
        images = [x_recon, x_prior]
        raw = self._image_terms(x, *images)
        weighted = {name: weight * raw[name] for name, weight in self._weights().items()}
        active = {name: term for name, term in weighted.items() if term.requires_grad}
        stops_at_decoder = self._stops_at_decoder()
        decoder_grads = _gradients([active[name] for name in active if name in stops_at_decoder], images)
        all_grads = _gradients([active[name] for name in active if name not in stops_at_decoder], images)

        kl = gaussian_kl_divergence(posterior)
        weighted["kl"] = self.kl_control.term(kl, self.step)
        self.autoencoder_optimizer.zero_grad(set_to_none=True)
        self._backward(z, images, decoder_grads, all_grads, weighted["kl"])
        self.autoencoder_optimizer.step()

        raw |= {"kl": kl, "kl_per_dim": kl / self.config.model.latent_dim}
        curves: dict[str, Tensor | float] = {"train/autoencoder": torch.stack(list(weighted.values())).sum().detach()}
        curves |= {f"train/{name}": value.detach() for name, value in raw.items()}
        curves |= {f"weighted/{name}": value.detach() for name, value in weighted.items()}
        curves["latent/mean_norm"] = posterior.mean.detach().norm(dim=1).mean()
        curves["latent/std"] = torch.exp(0.5 * posterior.logvar.detach()).mean()
        return curves

    def _weights(self) -> dict[str, float]:
        """Weight of every term of the autoencoder's loss that is a function of images."""
        loss = self.config.loss
        return {
            "generator_recon": loss.generator.recon,
            "generator_prior": loss.generator.prior,
            "feature_recon": loss.feature.recon,
            "feature_prior": loss.feature.prior,
            "pixel": loss.pixel.weight,
        }

    def _stops_at_decoder(self) -> set[str]:
        """Terms whose gradient must not reach the encoder. Prior samples' never does; theirs join where it is free."""
        loss = self.config.loss
        stops = {"generator_recon"} if loss.generator.gradient == "decoder" else set()
        stops |= {"feature_recon"} if loss.feature.gradient == "decoder" else set()
        return stops | {"generator_prior", "feature_prior"} if stops else stops

    def _image_terms(self, x: Tensor, x_recon: Tensor, x_prior: Tensor) -> dict[str, Tensor]:
        """Raw terms of the autoencoder's loss; the discriminator is frozen. A term of weight 0 takes no gradient."""
        loss, weights = self.config.loss, self._weights()
        with frozen_statistics(self.discriminator), self._autocast():
            with torch.no_grad():
                _, real_features = self.discriminator(x)
            with torch.set_grad_enabled(weights["generator_recon"] > 0 or weights["feature_recon"] > 0):
                recon_logits, recon_features = self.discriminator(x_recon)
            with torch.set_grad_enabled(weights["generator_prior"] > 0 or weights["feature_prior"] > 0):
                prior_logits, prior_features = self.discriminator(x_prior)
        scale = feature_scale(real_features, loss.feature.scale_free)
        variance = self.variance if loss.pixel.scale_free else None
        return {
            "generator_recon": self.adversarial.generator(recon_logits),
            "generator_prior": self.adversarial.generator(prior_logits),
            "feature_recon": feature_matching_loss(recon_features, real_features, scale),
            "feature_prior": feature_matching_loss(prior_features, real_features, scale),
            "pixel": pixel_loss(x_recon, x, loss.pixel.kind, variance),
        }

    def _backward(
        self,
        z: Tensor,
        outputs: list[Tensor],
        decoder_grads: list[Tensor] | None,
        all_grads: list[Tensor] | None,
        kl_term: Tensor,
    ) -> None:
        """From gradients at the decoder's `outputs` [x_recon, x_prior] to the parameters' `.grad`."""
        if decoder_grads is None:
            roots = outputs if all_grads is not None else []
            torch.autograd.backward([*roots, kl_term], [*(all_grads or []), None])
            return
        total = decoder_grads if all_grads is None else [a + b for a, b in zip(decoder_grads, all_grads, strict=True)]
        torch.autograd.backward(
            outputs, total, inputs=list(self.autoencoder.decoder.parameters()), retain_graph=all_grads is not None
        )
        encoder = list(self.autoencoder.encoder.parameters())
        if all_grads is None:
            torch.autograd.backward(kl_term, inputs=encoder)
            return
        (z_grad,) = torch.autograd.grad(outputs[0], z, all_grads[0])
        torch.autograd.backward([z, kl_term], [z_grad, None], inputs=encoder)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.train.precision == "bfloat16")

    # --- Curves -------------------------------------------------------------------------------------------------------

    def _flush(self) -> str:
        """Turns the steps since the last point into one point per curve, their mean.

        Returns "" or, when a value was not finite, the first such term and its step; then no point is made.
        """
        keys = [key for key, value in self._pending[0].items() if isinstance(value, Tensor)]
        rows = [torch.stack([_tensor(values[key]) for key in keys]) for values in self._pending]
        block = torch.stack(rows).cpu().double()
        first_step = self.step - len(self._pending) + 1
        bad = (~torch.isfinite(block)).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            return f"{keys[column]} is {block[row, column].item()} at step {first_step + row}"
        values = dict(zip(keys, block.mean(dim=0).tolist(), strict=True))
        values |= {key: value for key, value in self._pending[-1].items() if not isinstance(value, Tensor)}
        elapsed = time.perf_counter() - self._window_start
        values[IMAGES_PER_SECOND] = len(self._pending) * self.config.train.batch_size / elapsed
        self._add_points(values)
        self._pending.clear()
        self._window_start = time.perf_counter()
        return ""

    def _add_points(self, values: dict[str, Any]) -> None:
        now = int(time.time() * 1000)
        self._points += [Point(key, self.step, float(value), now) for key, value in values.items()]

    # --- The whole training -------------------------------------------------------------------------------------------

    def run(self, report: Report, *, checkpoint: Path | None = None, progress: Callable[[int], None] = _silent) -> None:
        """Trains to the last step. Every Evaluation goes to `report`; what `report` raises ends the training.

        With `checkpoint`, the state is saved there before each report. Where the file exists already, training goes on
        from it, and the Evaluation it was saved with is reported again, so that no report is ever lost.
        """
        config = self.config
        with self._runtime():
            if checkpoint is not None and checkpoint.exists():
                report(self.load(checkpoint))
            self._window_start = time.perf_counter()
            while self.step < config.train.steps:
                self.train_step()
                evaluates = self.step % config.evaluate.every == 0 or self.step == config.train.steps
                if not evaluates and self.step % config.train.log_every:
                    continue
                reason = self._flush()
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
                self._window_start = time.perf_counter()

    def evaluate(self) -> Evaluation:
        """Validation of the averaged weights now, with the curve points since the last one."""
        model = self.averaged
        metrics = self.evaluator.metrics(model)
        for key, value in metrics.items():
            if not math.isfinite(value):
                return self._diverged(f"{key} is {value} at step {self.step}")
        self._add_points(metrics)
        outcome: Outcome = "completed" if self.step == self.config.train.steps else "running"
        return Evaluation(self.step, outcome, metrics, self._take_points(), self.evaluator.images(model))

    def _diverged(self, reason: str) -> Evaluation:
        return Evaluation(self.step, "diverged", points=self._take_points(), reason=reason)

    def _take_points(self) -> tuple[Point, ...]:
        points, self._points = tuple(self._points), []
        return points

    @contextmanager
    def _runtime(self) -> Iterator[None]:
        """Threads and determinism as configured, and as they were afterwards: a worker's process outlives its trial."""
        threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        fill = deterministic_mode.fill_uninitialized_memory
        torch.set_num_threads(int(self.config.train.threads))
        torch.use_deterministic_algorithms(self.config.train.deterministic)
        # Filling fresh memory guards against reading it before writing, which nothing here does; it takes a tenth.
        deterministic_mode.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)
            deterministic_mode.fill_uninitialized_memory = fill

    # --- State --------------------------------------------------------------------------------------------------------

    def save(self, path: Path, evaluation: Evaluation) -> None:
        """Everything that the next step depends on, and the Evaluation made at this one, in one file."""
        tensors = flatten_state("autoencoder", self.autoencoder.state_dict())
        tensors |= flatten_state("discriminator", self.discriminator.state_dict())
        tensors |= flatten_state("ema", self.ema.state_dict())
        tensors |= flatten_state("autoencoder_optimizer", self.autoencoder_optimizer.state_dict()["state"])
        tensors |= flatten_state("discriminator_optimizer", self.discriminator_optimizer.state_dict()["state"])
        tensors |= flatten_state("kl_control", self.kl_control.state())
        tensors["generator"] = self.generator.get_state()
        tensors["evaluation"] = torch.frombuffer(bytearray(evaluation.to_bytes()), dtype=torch.uint8)
        save_tensors(path, tensors, {"step": self.step, "config": self.config.dump()})

    def load(self, path: Path) -> Evaluation:
        """Continues from a saved state; returns the Evaluation stored with it.

        Raises DamagedCheckpoint, or ValueError when the state belongs to another configuration.
        """
        tensors, metadata = load_tensors(path)
        if metadata["config"] != self.config.dump():
            raise ValueError(f"{path} was written by another configuration; remove it, or train with its own")
        self.autoencoder.load_state_dict(strip_prefix("autoencoder", tensors))
        self.discriminator.load_state_dict(strip_prefix("discriminator", tensors))
        self.ema.load_state_dict(strip_prefix("ema", tensors))
        _load_adam(self.autoencoder_optimizer, strip_prefix("autoencoder_optimizer", tensors))
        _load_adam(self.discriminator_optimizer, strip_prefix("discriminator_optimizer", tensors))
        self.kl_control.load_state(strip_prefix("kl_control", tensors))
        self.generator.set_state(tensors["generator"])
        self.step = metadata["step"]
        return Evaluation.from_bytes(tensors["evaluation"].numpy().tobytes())

    def save_model(self, path: Path) -> None:
        """The averaged autoencoder alone: what is promoted and served."""
        save_tensors(path, self.averaged.state_dict(), {"step": self.step, "config": self.config.dump()})


def load_model(path: Path, size: tuple[int, int]) -> Autoencoder:
    """The autoencoder written by `save_model`, in evaluation mode on the CPU; `size` is (H, W) of its frames."""
    tensors, metadata = load_tensors(path)
    model = Autoencoder(parse_trial(metadata["config"], str(path)).model, size)
    model.load_state_dict(tensors)
    return model.eval()


def check_size(config: TrialConfig, size: tuple[int, int]) -> None:
    """Raises ValueError when frames of `size` (H, W) are too small for the configured depth."""
    smallest = downsampled(size, config.model.depth)[-2]
    if min(smallest) < 3:
        raise ValueError(
            f"every map that is halved must be at least 3 x 3, but frames of {size[1]}x{size[0]} reach "
            f"{smallest[1]}x{smallest[0]} at model.depth {config.model.depth}; lower model.depth or use larger frames"
        )


def _adam(module: nn.Module, lr: float, config: Any) -> Adam:
    return Adam(module.parameters(), lr=lr, betas=(config.beta1, config.beta2), fused=True)


def _load_adam(optimizer: Adam, flat: dict[str, Tensor]) -> None:
    """Restores Adam's moments, each in its parameter's own memory layout: the fused kernel reads them side by side."""
    for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
        moments = {
            name: torch.empty_like(parameter).copy_(flat[f"{index}/{name}"]) for name in ("exp_avg", "exp_avg_sq")
        }
        optimizer.state[parameter] = {"step": flat[f"{index}/step"].to(parameter.device), **moments}


def _gradients(terms: list[Tensor], images: list[Tensor]) -> list[Tensor] | None:
    """d(sum of terms)/d(image) for each image, zeros where there is none; None when there are no terms."""
    if not terms:
        return None
    grads = torch.autograd.grad(sum(terms, torch.zeros_like(terms[0])), images, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(image) if grad is None else grad for grad, image in zip(grads, images, strict=True)]


def _tensor(value: Tensor | float) -> Tensor:
    assert isinstance(value, Tensor)
    return value.float()
