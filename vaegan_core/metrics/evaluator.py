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
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from vaegan_core.config.training import EvaluateConfig
from vaegan_core.data.batches import as_tensor, evenly_spaced, to_images
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import (
    ACTIVE_UNITS,
    AGGREGATE_DISTANCE,
    AUC_PRIOR,
    AUC_RECON,
    DECODER_GAP,
    DIVERSITY,
    DUPLICATES,
    EXPOST_GAP,
    FEATURE_GAIN,
    FITTED_LAYOUT_FD,
    FITTED_SAMPLES,
    GAP_FLOOR,
    KL,
    KL_PER_DIM,
    LATENT_OFFSET,
    LATENT_RADIUS,
    LAYOUT_FD,
    NEAREST_TRAIN,
    PERMUTED_MSE_RATIO,
    PIXEL_MSE,
    PRIOR_GAP,
    PRIOR_SAMPLES,
    RECON_FD,
    RECONSTRUCTIONS,
    SAMPLES_FD,
    SAMPLES_FID,
    SAMPLES_KID,
    SAMPLES_SWD,
    SSIM,
)
from vaegan_core.metrics.distances import (
    auc,
    frechet_distance,
    gaussian_moments,
    median_pair_distance,
    pair_distances,
    standard_normal_distance,
    structural_similarity,
)
from vaegan_core.metrics.frame_features import SMALLEST_DISTANCE, FrameFeatures, matched, matched_kernel_distance
from vaegan_core.metrics.generated import EVALUATION_SEED, MAX_JUDGED, FixedInputs, Reconstructions, Samples
from vaegan_core.metrics.grids import GRID_FRAMES, GRID_SAMPLES, png, png_of_pairs
from vaegan_core.metrics.inception import load_inception
from vaegan_core.metrics.settings import MAX_PAIRED, SETTINGS
from vaegan_core.metrics.sliced_wasserstein import sliced_wasserstein
from vaegan_core.model.networks import Autoencoder, Discriminator

MAX_SSIM = 64
ACTIVE_VARIANCE = 0.01
SMALLEST_MSE = 1e-12
"""Added to errors that are divided by each other."""


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
        assert features.layouts is not None, "features come from ensure_features"
        self.features, self.layouts = features, features.layouts
        self.frame_set = frame_set
        self.inception = None if config.inception_weights is None else load_inception(config.inception_weights)
        self.inputs = FixedInputs(config, frame_set, features.space, latent_dim, device, autocast)
        test = as_tensor(frame_set.test)
        self.grid_frames = test[torch.from_numpy(evenly_spaced(len(test), GRID_FRAMES))].to(device)

    @torch.inference_mode()
    def metrics(
        self, model: Autoencoder, discriminator: Discriminator, score: Callable[[Tensor], Tensor]
    ) -> dict[str, float]:
        """Every validation metric by key; `model` is in evaluation mode, D is put into it for the duration.

        `score` makes of D's logits the one of each image, [n], that AUC is of. D's running statistics and power
        iteration do not advance. Raises ValueError for a single test frame.
        """
        recon, prior = self._images_of(model)
        of_model = self._model_metrics(model, recon, prior)
        return of_model | self._discriminator_metrics(discriminator, score, recon.images, prior.images)

    @torch.inference_mode()
    def model_metrics(self, model: Autoencoder) -> dict[str, float]:
        """Those of `metrics` that need no discriminator, which is not kept with a stored model."""
        return self._model_metrics(model, *self._images_of(model))

    @torch.inference_mode()
    def final_metrics(self, model: Autoencoder) -> dict[str, float]:
        """Metrics too slow for every evaluation: with Inception weights, `val/samples_fid` of the prior samples to
        equally many training frames; otherwise none."""
        if self.inception is None:
            return {}
        z_prior = self.inputs.z_prior
        samples = self.inputs.images(model, z_prior)
        return {SAMPLES_FID: self.inception.distance(samples, self.frame_set, len(z_prior), z_prior.device)}

    # --- Metrics ------------------------------------------------------------------------------------------------------

    def _images_of(self, model: Autoencoder) -> tuple[Reconstructions, Samples]:
        return self.inputs.reconstruct(model), self.inputs.decode(model, self.inputs.z_prior, self.layouts.space)

    def _model_metrics(self, model: Autoencoder, recon: Reconstructions, prior: Samples) -> dict[str, float]:
        return {
            **self._reconstruction_metrics(recon),
            **latent_metrics(recon.mean, recon.z, recon.kl),
            **self._sample_metrics(prior),
            **self._gaps(model, prior),
        }

    def _reconstruction_metrics(self, recon: Reconstructions) -> dict[str, float]:
        x = to_images(self.inputs.frames[:MAX_SSIM])
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
            LAYOUT_FD: self.layouts.frechet(samples.layouts),
            SAMPLES_FD: self.features.frechet(samples.points),
            SAMPLES_KID: matched_kernel_distance(samples.points, self.features.reference),
            SAMPLES_SWD: sliced_wasserstein(samples.images[: SETTINGS.sliced.images], self.features.sliced),
            NEAREST_TRAIN: self.features.nearest(samples.points[:MAX_PAIRED]),
            DIVERSITY: median_pair_distance(distances) / max(real_median, SMALLEST_DISTANCE),
            DUPLICATES: float((distances.amin(1) <= real_percentile).double().mean()),
        }

    def _gaps(self, model: Autoencoder, prior: Samples) -> dict[str, float]:
        """What is wrong with the samples, in parts: z, which the prior draws where q(z) is not, and the decoder.

        The floor is that of two sets as large, from the distance of two halves drawn at random, the same ones always:
        at equal distributions a Fréchet distance goes with 1/n (Chong & Forsyth 2020, sec. 3).
        """
        density, z = self.inputs.encode_train(model)
        posterior = self.inputs.decode(model, z)
        fitted = self.inputs.decode(model, density.sample(self.inputs.z_prior), self.layouts.space)
        moments = [gaussian_moments([samples.points]) for samples in (posterior, prior, fitted)]
        order = torch.randperm(len(posterior.points), generator=torch.Generator().manual_seed(EVALUATION_SEED))
        halves = [gaussian_moments([posterior.points[half]]) for half in order.to(z.device).tensor_split(2)]
        return {
            DECODER_GAP: self.features.frechet(posterior.points),
            PRIOR_GAP: frechet_distance(*moments[1], *moments[0]),
            EXPOST_GAP: frechet_distance(*moments[2], *moments[0]),
            GAP_FLOOR: frechet_distance(*halves[0], *halves[1]) / 2,
            FITTED_LAYOUT_FD: self.layouts.frechet(fitted.layouts),
        }

    @property
    def _num_paired(self) -> int:
        """Number of samples compared in pairs, the same as of real frames: nearest neighbors depend on the number."""
        return min(len(self.inputs.z_prior), MAX_PAIRED, len(self.features.reference))

    @cached_property
    def _real_pairs(self) -> tuple[float, float]:
        """The median distance of two real frames, and the first percentile of their distances to the nearest other."""
        distances = pair_distances(matched(self.features.reference, self._num_paired))
        return median_pair_distance(distances), float(distances.amin(1).quantile(0.01))

    def _discriminator_metrics(
        self, discriminator: Discriminator, score: Callable[[Tensor], Tensor], x_recon: Tensor, x_prior: Tensor
    ) -> dict[str, float]:
        x = to_images(self.inputs.frames[:MAX_JUDGED])
        with _evaluating(discriminator):
            verdicts = [self._judge(discriminator, *batch) for batch in self.inputs.batches(x, x_recon)]
            prior_logits = [self._discriminate(discriminator, batch)[0] for (batch,) in self.inputs.batches(x_prior)]
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
        x, z = to_images(self.grid_frames), self.inputs.z_prior[:GRID_SAMPLES]
        with self.autocast():
            x_recon = model.decoder(model.encoder(x).mean)
            prior, fitted = model.decoder(z), model.decoder(self.inputs.encode_train(model)[0].sample(z))
        return {RECONSTRUCTIONS: png_of_pairs(x, x_recon), PRIOR_SAMPLES: png(prior), FITTED_SAMPLES: png(fitted)}


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
