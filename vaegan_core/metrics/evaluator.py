"""Validation of the averaged (EMA) weights: reconstructions of test frames, latents, prior samples, the discriminator's
view of them, image grids. METRICS in evaluation.py says what each metric means.

Everything that is compared stays the same in every evaluation of every trial: test frames in one fixed order, posterior
noise, prior z, reference. Some measurements use only the first images in that order: SSIM 64 reconstructions, the
sliced Wasserstein distance 128 samples, the discriminator 128 images of each kind, the Fréchet distance of
reconstructions 512 of them, and everything that looks at pairs (kernel distance, neighbors, diversity) 1,000 samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from vaegan_core.config import EvaluateConfig
from vaegan_core.data.batches import as_tensor, evenly_spaced, to_images
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import (
    ACTIVE_UNITS,
    AGGREGATE_DISTANCE,
    AUC_PRIOR,
    AUC_RECON,
    DIVERSITY,
    DUPLICATES,
    FEATURE_GAIN,
    KL,
    KL_PER_DIM,
    LATENT_OFFSET,
    LATENT_RADIUS,
    NEAREST_TRAIN,
    PERMUTED_MSE_RATIO,
    PIXEL_MSE,
    PRIOR_SAMPLES,
    RECON_FD,
    RECONSTRUCTIONS,
    SAMPLES_FD,
    SAMPLES_FID,
    SAMPLES_KID,
    SAMPLES_SWD,
    SSIM,
)
from vaegan_core.losses.functional import gaussian_kl_divergence
from vaegan_core.metrics.distances import (
    auc,
    median_pair_distance,
    pair_distances,
    standard_normal_distance,
    structural_similarity,
)
from vaegan_core.metrics.frame_features import SMALLEST_DISTANCE, FrameFeatures, matched, matched_kernel_distance
from vaegan_core.metrics.grids import GRID_COLUMNS, GRID_FRAMES, GRID_SAMPLES, png
from vaegan_core.metrics.inception import load_inception
from vaegan_core.metrics.settings import MAX_PAIRED, SETTINGS
from vaegan_core.metrics.sliced_wasserstein import sliced_wasserstein
from vaegan_core.model.networks import Autoencoder, Discriminator

EVALUATION_SEED = 20190411
MAX_SSIM = 64
MAX_JUDGED = 128
"""Images of each kind that the discriminator sees."""
MAX_RECON_POINTS = 512
"""Reconstructions that the feature network sees: it costs more than encoder and decoder do."""
ACTIVE_VARIANCE = 0.01
SMALLEST_MSE = 1e-12
"""Added to errors that are divided by each other."""


@dataclass(frozen=True)
class Reconstructions:
    """Reconstructions of n test frames, from z ~ q(z|x)."""

    mse: float
    permuted_mse: float
    """Against a frame other than the one encoded, as far away as possible in the fixed order."""
    kl: float | None
    """Nats per image; None for a deterministic encoder."""
    mean: Tensor
    """Posterior means, [n, L]; `z` has the same shape."""
    z: Tensor
    points: Tensor
    """The first m <= 512 in the frame set's feature space, [m, d]."""
    images: Tensor
    """The first 128, [128, 3, H, W]."""


@dataclass(frozen=True)
class Samples:
    """Images of n fixed z ~ N(0, I)."""

    points: Tensor
    """All of them in the frame set's feature space, [n, d]."""
    images: Tensor
    """The first 128, [128, 3, H, W]."""


class Evaluator:
    """Holds what stays the same in every evaluation: test frames, posterior noise, prior z, reference statistics.

    Raises ValueError when the configured Inception weights cannot be used.
    """

    def __init__(
        self,
        config: EvaluateConfig,
        frame_set: FrameSet,
        features: FrameFeatures,
        latent_dim: int,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.autocast = autocast
        self.batch_size = config.batch_size
        self.features = features
        self.frame_set = frame_set
        self.inception = None if config.inception_weights is None else load_inception(config.inception_weights)
        test = as_tensor(frame_set.test)
        self.grid_frames = test[torch.from_numpy(evenly_spaced(len(test), GRID_FRAMES))].to(device)
        generator = torch.Generator().manual_seed(EVALUATION_SEED)
        self.z_prior = torch.randn(config.num_samples, latent_dim, generator=generator).to(device)
        chosen = torch.from_numpy(evenly_spaced(len(test), config.num_test))
        self.noise = torch.randn(len(chosen), latent_dim, generator=generator).to(device)
        self.frames = test[chosen[torch.randperm(len(chosen), generator=generator)]].to(device)

    @torch.inference_mode()
    def metrics(
        self, model: Autoencoder, discriminator: Discriminator, score: Callable[[Tensor], Tensor]
    ) -> dict[str, float]:
        """Every validation metric by key; `model` is in evaluation mode, D is put into it for the duration.

        `score` makes of D's logits the one of each image, [n], that AUC is of. D's running statistics and power
        iteration do not advance. Raises ValueError for a single test frame.
        """
        recon, samples = self._reconstruct(model), self._sample(model)
        return {
            **self._reconstruction_metrics(recon),
            **latent_metrics(recon.mean, recon.z, recon.kl),
            **self._sample_metrics(samples),
            **self._discriminator_metrics(discriminator, score, recon.images, samples.images),
        }

    @torch.inference_mode()
    def final_metrics(self, model: Autoencoder) -> dict[str, float]:
        """Metrics too slow for every evaluation: with Inception weights, `val/samples_fid` of the prior samples to
        equally many training frames; otherwise none."""
        if self.inception is None:
            return {}
        samples = (self._decode(model, z) for (z,) in self._batches(self.z_prior))
        distance = self.inception.distance(samples, self.frame_set, len(self.z_prior), self.z_prior.device)
        return {SAMPLES_FID: distance}

    # --- Images -------------------------------------------------------------------------------------------------------

    def _reconstruct(self, model: Autoencoder) -> Reconstructions:
        count = len(self.frames)
        squared_error = permuted_error = kl = torch.zeros((), device=self.frames.device)
        means: list[Tensor] = []
        zs: list[Tensor] = []
        points: list[Tensor] = []
        images: list[Tensor] = []
        others = self.frames.roll(count // 2, 0)
        for frames, other, noise in self._batches(self.frames, others, self.noise):
            x = to_images(frames)
            with self.autocast():
                posterior = model.encoder(x)
                z = posterior.sample(noise)
                x_recon = model.decoder(z)
            squared_error = squared_error + (x_recon - x).square().mean() * len(x)
            permuted_error = permuted_error + (x_recon - to_images(other)).square().mean() * len(x)
            if posterior.logvar is not None:
                kl = kl + gaussian_kl_divergence(posterior) * len(x)
            means.append(posterior.mean)
            zs.append(z)
            points.append(self.features.space.project(x_recon[: _missing(points, MAX_RECON_POINTS)]))
            images.append(x_recon[: _missing(images, MAX_JUDGED)])
        return Reconstructions(
            mse=float(squared_error) / count,
            permuted_mse=float(permuted_error) / count,
            kl=None if posterior.logvar is None else float(kl) / count,
            mean=torch.cat(means),
            z=torch.cat(zs),
            points=torch.cat(points),
            images=torch.cat(images),
        )

    def _sample(self, model: Autoencoder) -> Samples:
        points: list[Tensor] = []
        images: list[Tensor] = []
        for (z,) in self._batches(self.z_prior):
            x_prior = self._decode(model, z)
            points.append(self.features.space.project(x_prior))
            images.append(x_prior[: _missing(images, MAX_JUDGED)])
        return Samples(torch.cat(points), torch.cat(images))

    def _decode(self, model: Autoencoder, z: Tensor) -> Tensor:
        with self.autocast():
            images: Tensor = model.decoder(z)
        return images

    def _batches(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        return zip(*(torch.split(tensor, self.batch_size) for tensor in tensors), strict=True)

    # --- Metrics ------------------------------------------------------------------------------------------------------

    def _reconstruction_metrics(self, recon: Reconstructions) -> dict[str, float]:
        x = to_images(self.frames[:MAX_SSIM])
        return {
            PIXEL_MSE: recon.mse,
            SSIM: structural_similarity(recon.images[:MAX_SSIM], x),
            RECON_FD: self.features.test_frechet(recon.points),
            PERMUTED_MSE_RATIO: (recon.permuted_mse + SMALLEST_MSE) / (recon.mse + SMALLEST_MSE),
        }

    def _sample_metrics(self, samples: Samples) -> dict[str, float]:
        """Metrics of prior samples. The share of duplicates is 0.01 for real frames, by its definition."""
        real_median, real_percentile = self._real_pairs
        distances = pair_distances(samples.points[: self._num_paired])
        return {
            SAMPLES_FD: self.features.frechet(samples.points),
            SAMPLES_KID: matched_kernel_distance(samples.points, self.features.reference),
            SAMPLES_SWD: sliced_wasserstein(samples.images[: SETTINGS.sliced.images], self.features.sliced),
            NEAREST_TRAIN: self.features.nearest(samples.points[:MAX_PAIRED]),
            DIVERSITY: median_pair_distance(distances) / max(real_median, SMALLEST_DISTANCE),
            DUPLICATES: float((distances.amin(1) <= real_percentile).double().mean()),
        }

    @property
    def _num_paired(self) -> int:
        """Number of samples compared in pairs, the same as of real frames: nearest neighbors depend on the number."""
        return min(len(self.z_prior), MAX_PAIRED, len(self.features.reference))

    @cached_property
    def _real_pairs(self) -> tuple[float, float]:
        """The median distance of two real frames, and the first percentile of their distances to the nearest other."""
        distances = pair_distances(matched(self.features.reference, self._num_paired))
        return median_pair_distance(distances), float(distances.amin(1).quantile(0.01))

    def _discriminator_metrics(
        self, discriminator: Discriminator, score: Callable[[Tensor], Tensor], x_recon: Tensor, x_prior: Tensor
    ) -> dict[str, float]:
        x = to_images(self.frames[:MAX_JUDGED])
        with _evaluating(discriminator):
            verdicts = [self._judge(discriminator, *batch) for batch in self._batches(x, x_recon)]
            prior_logits = [self._discriminate(discriminator, batch)[0] for (batch,) in self._batches(x_prior)]
        *judged, changes = (torch.cat(parts) for parts in zip(*verdicts, strict=True))
        real, recon, prior = (score(logits) for logits in (*judged, torch.cat(prior_logits)))
        change, feature_change = changes.mean(0).tolist()
        return {
            AUC_RECON: auc(real, recon),
            AUC_PRIOR: auc(real, prior),
            FEATURE_GAIN: feature_change / (change + SMALLEST_MSE),
        }

    def _judge(self, discriminator: Discriminator, x: Tensor, x_recon: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of both, and the mean squared differences of pixels and of features of each pair, [n, 2]."""
        real_logits, real_features = self._discriminate(discriminator, x)
        recon_logits, recon_features = self._discriminate(discriminator, x_recon)
        pairs = ((x_recon, x), (recon_features, real_features))
        changes = [(after - before).square().mean((1, 2, 3)) for after, before in pairs]
        return real_logits, recon_logits, torch.stack(changes, 1)

    def _discriminate(self, discriminator: Discriminator, x: Tensor) -> tuple[Tensor, Tensor]:
        with self.autocast():
            logits, features = discriminator(x)
        return logits, features

    # --- Grids --------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def images(self, model: Autoencoder) -> dict[str, bytes]:
        """PNG grids of fixed frames and fixed z: rows of test frames above their reconstructions, and prior samples."""
        x = to_images(self.grid_frames)
        with self.autocast():
            x_recon = model.decoder(model.encoder(x).mean)
            samples = model.decoder(self.z_prior[:GRID_SAMPLES])
        rows = [
            row
            for pair in zip(*(torch.split(images, GRID_COLUMNS) for images in (x, x_recon)), strict=True)
            for row in pair
        ]
        return {RECONSTRUCTIONS: png(torch.cat(rows)), PRIOR_SAMPLES: png(samples)}


def latent_metrics(mean: Tensor, z: Tensor, kl: float | None) -> dict[str, float]:
    """Metrics of posterior means and z ~ q(z|x), both [n, L], and of the KL in nats per image (None: no variance).

    Active units: Var_x mu > 0.01 (Burda et al. 2016, sec. 5.2). Offset: |E mu| / sqrt(L). Radius: sqrt(E |z|^2 / L).
    """
    latent_dim = z.shape[1]
    kl_metrics = {} if kl is None else {KL: kl, KL_PER_DIM: kl / latent_dim}
    return kl_metrics | {
        ACTIVE_UNITS: float((mean.var(0, correction=0) > ACTIVE_VARIANCE).sum()),
        AGGREGATE_DISTANCE: standard_normal_distance(z),
        LATENT_OFFSET: float(mean.mean(0).square().mean().sqrt()),
        LATENT_RADIUS: float(z.square().mean().sqrt()),
    }


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _missing(batches: list[Tensor], most: int) -> int:
    """Number of items still to take after these batches."""
    return max(0, most - sum(len(batch) for batch in batches))
