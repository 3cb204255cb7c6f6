"""Validation of the averaged (EMA) weights: reconstructions of test frames, latents, prior samples, what D makes of
them, image grids.

Everything that is compared stays the same in every evaluation of every trial: test frames in one fixed order, posterior
noise, prior z, reference. Some measurements look at part of the images only, the first in that order: SSIM at 64
reconstructions, the sliced Wasserstein distance at 128 samples, the discriminator at 128 of each kind, the Fréchet
distance of reconstructions at 512 of them, whatever looks at pairs (kernel distance, neighbors, diversity) at 1,000
samples.
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
from vaegan_core.data.batches import as_tensor, to_images
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
from vaegan_core.metrics.frame_features import (
    MAX_PAIRED,
    MAX_SLICED,
    SMALLEST_DISTANCE,
    FrameFeatures,
    matched,
    matched_kernel_distance,
)
from vaegan_core.metrics.grids import GRID_COLUMNS, GRID_FRAMES, GRID_SAMPLES, png
from vaegan_core.metrics.inception import load_inception
from vaegan_core.metrics.sliced_wasserstein import sliced_wasserstein
from vaegan_core.model.networks import Autoencoder, Discriminator

EVALUATION_SEED = 20190411
MAX_SSIM = 64
MAX_JUDGED = 128
"""Images of each kind that the discriminator looks at."""
MAX_RECON_POINTS = 512
"""Reconstructions that the feature network looks at: it costs more than encoder and decoder do."""
ACTIVE_VARIANCE = 0.01
SMALLEST_MSE = 1e-12
"""Added to errors that are divided by one another."""


@dataclass(frozen=True)
class Reconstructions:
    """Of n test frames, z ~ q(z|x)."""

    mse: float
    permuted_mse: float
    """Against another frame than the one encoded, as far away as possible in the fixed order."""
    kl: float | None
    """Nats per image; None for a deterministic encoder."""
    mean: Tensor
    """Of the posterior, [n, L], as `z` is."""
    z: Tensor
    points: Tensor
    """[m, d], of the first m <= 512 in the frame set's feature space."""
    images: Tensor
    """The first 128."""


@dataclass(frozen=True)
class Samples:
    """Of n fixed z ~ N(0, I)."""

    points: Tensor
    images: Tensor
    """The first 128."""


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
        self.grid_frames = test[_evenly(len(test), GRID_FRAMES)].to(device)
        generator = torch.Generator().manual_seed(EVALUATION_SEED)
        self.z_prior = torch.randn(config.num_samples, latent_dim, generator=generator).to(device)
        chosen = _evenly(len(test), config.num_test)
        self.noise = torch.randn(len(chosen), latent_dim, generator=generator).to(device)
        self.frames = test[chosen[torch.randperm(len(chosen), generator=generator)]].to(device)

    @torch.inference_mode()
    def metrics(self, model: Autoencoder, discriminator: Discriminator) -> dict[str, float]:
        """Every validation metric; `model` is in evaluation mode, D is put into it for the while.

        D's running statistics and power iteration do not advance. Raises ValueError for a single test frame.
        """
        recon, samples = self._reconstruct(model), self._sample(model)
        return {
            **self._reconstruction_metrics(recon),
            **latent_metrics(recon.mean, recon.z, recon.kl),
            **self._sample_metrics(samples),
            **self._discriminator_metrics(discriminator, recon.images, samples.images),
        }

    @torch.inference_mode()
    def final_metrics(self, model: Autoencoder) -> dict[str, float]:
        """What is too slow for every evaluation. `val/samples_fid`: Fréchet distance in Inception's features between
        the prior samples and as many training frames; only with Inception weights."""
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
            points.append(self.features.space.project(x_recon[: _lacking(points, MAX_RECON_POINTS)]))
            images.append(x_recon[: _lacking(images, MAX_JUDGED)])
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
            images.append(x_prior[: _lacking(images, MAX_JUDGED)])
        return Samples(torch.cat(points), torch.cat(images))

    def _decode(self, model: Autoencoder, z: Tensor) -> Tensor:
        with self.autocast():
            images: Tensor = model.decoder(z)
        return images

    def _batches(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        return zip(*(torch.split(each, self.batch_size) for each in tensors), strict=True)

    # --- Metrics ------------------------------------------------------------------------------------------------------

    def _reconstruction_metrics(self, recon: Reconstructions) -> dict[str, float]:
        """Of G(z), z ~ q(z|x), against test frames. `val/pixel_mse`: mean squared error on [-1, 1]. `val/ssim`.
        `val/recon_fd`: Fréchet distance (features.py). `val/permuted_mse_ratio`: the MSE against other frames over the
        MSE, which is that of permuted z over that of z; 1 when images do not depend on z.
        """
        x = to_images(self.frames[:MAX_SSIM])
        return {
            PIXEL_MSE: recon.mse,
            SSIM: structural_similarity(recon.images[:MAX_SSIM], x),
            RECON_FD: self.features.test_frechet(recon.points),
            PERMUTED_MSE_RATIO: (recon.permuted_mse + SMALLEST_MSE) / (recon.mse + SMALLEST_MSE),
        }

    def _sample_metrics(self, samples: Samples) -> dict[str, float]:
        """Of prior samples, against training frames. `val/samples_fd`, `val/samples_kid`, `val/samples_swd`: Fréchet,
        kernel and sliced Wasserstein distance. `val/nearest_train`: median distance to the nearest training frame over
        that of frames held out; below 1 the samples are copies.

        `val/diversity`: median distance of two samples over that of two real frames. `val/duplicates`: share of samples
        that are as near to another one as the nearest 1 % among equally many real frames; 0.01 for real frames.
        """
        real_median, real_percentile = self._real_pairs
        distances = pair_distances(samples.points[: self._num_paired])
        return {
            SAMPLES_FD: self.features.frechet(samples.points),
            SAMPLES_KID: matched_kernel_distance(samples.points, self.features.reference),
            SAMPLES_SWD: sliced_wasserstein(samples.images[:MAX_SLICED], self.features.sliced),
            NEAREST_TRAIN: self.features.nearest(samples.points[:MAX_PAIRED]),
            DIVERSITY: median_pair_distance(distances) / max(real_median, SMALLEST_DISTANCE),
            DUPLICATES: float((distances.amin(1) <= real_percentile).double().mean()),
        }

    @property
    def _num_paired(self) -> int:
        """As many samples as there are real frames to compare them with: nearest neighbors depend on the number."""
        return min(len(self.z_prior), MAX_PAIRED, len(self.features.reference))

    @cached_property
    def _real_pairs(self) -> tuple[float, float]:
        """Of real frames: the median distance of two, and the first percentile of distances to the nearest other."""
        distances = pair_distances(matched(self.features.reference, self._num_paired))
        return median_pair_distance(distances), float(distances.amin(1).quantile(0.01))

    def _discriminator_metrics(
        self, discriminator: Discriminator, x_recon: Tensor, x_prior: Tensor
    ) -> dict[str, float]:
        """`val/auc_recon`, `val/auc_prior`: of D, real test frames against reconstructions and against prior samples.
        `val/feature_gain`: mean squared change of D's features over that of the pixels, test frames to reconstructions.
        """
        x = to_images(self.frames[:MAX_JUDGED])
        with _evaluating(discriminator):
            judged = [self._judge(discriminator, *batch) for batch in self._batches(x, x_recon)]
            prior_logits = [self._discriminate(discriminator, batch)[0] for (batch,) in self._batches(x_prior)]
        real_logits, recon_logits, changes = (torch.cat(each) for each in zip(*judged, strict=True))
        change, feature_change = changes.mean(0).tolist()
        return {
            AUC_RECON: auc(real_logits, recon_logits),
            AUC_PRIOR: auc(real_logits, torch.cat(prior_logits)),
            FEATURE_GAIN: feature_change / (change + SMALLEST_MSE),
        }

    def _judge(self, discriminator: Discriminator, x: Tensor, x_recon: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [n] of both, and of each pair the mean squared difference of pixels and of features, [n, 2]."""
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
        """PNG grids on fixed frames and fixed z: rows of test frames above their reconstructions, and prior samples."""
        x = to_images(self.grid_frames)
        with self.autocast():
            x_recon = model.decoder(model.encoder(x).mean)
            samples = model.decoder(self.z_prior[:GRID_SAMPLES])
        rows = [
            row
            for pair in zip(*(torch.split(each, GRID_COLUMNS) for each in (x, x_recon)), strict=True)
            for row in pair
        ]
        return {RECONSTRUCTIONS: png(torch.cat(rows)), PRIOR_SAMPLES: png(samples)}


def latent_metrics(mean: Tensor, z: Tensor, kl: float | None) -> dict[str, float]:
    """Of posterior means and z ~ q(z|x), both [n, L], and the KL in nats per image, None without a variance.

    `val/active_units`: latent dimensions whose mean varies by more than 0.01 over images (Burda et al. 2016, sec. 5.2).
    `val/aggregate_distance`: of z to the prior (`standard_normal_distance`). `val/latent_offset`: |E mu| / sqrt(L).
    `val/latent_radius`: sqrt(E |z|^2 / L), 1 for the prior.
    """
    latent_dim = z.shape[1]
    found = {} if kl is None else {KL: kl, KL_PER_DIM: kl / latent_dim}
    return found | {
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


def _lacking(batches: list[Tensor], most: int) -> int:
    """How many items of the next batch are still to be taken after these."""
    return max(0, most - sum(len(batch) for batch in batches))


def _evenly(count: int, wanted: int) -> Tensor:
    """`wanted` indices (or all) spread evenly over range(count), first and last included."""
    return torch.linspace(0, count - 1, min(count, wanted)).round().long()
