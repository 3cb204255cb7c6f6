"""The images that a model makes of fixed inputs: the same frames, noise and z in every evaluation of every trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaegan_core.config.training import EvaluateConfig
from vaegan_core.data.batches import as_tensor, evenly_spaced, to_images
from vaegan_core.data.frames import FrameSet
from vaegan_core.losses.functional import gaussian_kl_divergence
from vaegan_core.metrics.feature_space import FeatureSpace
from vaegan_core.model.latent_density import LatentDensity, density_of
from vaegan_core.model.networks import Autoencoder

EVALUATION_SEED = 20190411
MAX_JUDGED = 128
"""Images of each kind that the discriminator sees."""
MAX_RECON_POINTS = 512
"""Reconstructions of test frames that the feature network sees: it costs more than encoder and decoder do."""


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
    """Images decoded from n latents."""

    points: Tensor
    """All of them in the frame set's feature space, [n, d]."""
    layouts: Tensor
    """The same in the space of layouts; empty where nobody asks."""
    images: Tensor
    """The first 128, [128, 3, H, W]."""


class FixedInputs:
    """Test and training frames, posterior noise and prior z, and what a model makes of them."""

    def __init__(
        self,
        config: EvaluateConfig,
        frame_set: FrameSet,
        space: FeatureSpace,
        latent_dim: int,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.config, self.space, self.device, self.autocast = config, space, device, autocast
        generator = torch.Generator().manual_seed(EVALUATION_SEED)
        self.z_prior = torch.randn(config.num_samples, latent_dim, generator=generator).to(device)
        test = as_tensor(frame_set.test)
        chosen = torch.from_numpy(evenly_spaced(len(test), config.num_test))
        self.noise = torch.randn(len(chosen), latent_dim, generator=generator).to(device)
        self.frames = test[chosen[torch.randperm(len(chosen), generator=generator)]].to(device)
        self.train_frames = as_tensor(frame_set.train[evenly_spaced(frame_set.num_train, config.num_samples)]).to(
            device
        )
        self.train_noise = torch.randn(len(self.train_frames), latent_dim, generator=generator).to(device)

    def reconstruct(self, model: Autoencoder) -> Reconstructions:
        """Reconstructions of the test frames."""
        count = len(self.frames)
        squared_error = permuted_error = kl = torch.zeros((), device=self.frames.device)
        means: list[Tensor] = []
        zs: list[Tensor] = []
        points: list[Tensor] = []
        images: list[Tensor] = []
        others = self.frames.roll(count // 2, 0)
        for frames, other, noise in self.batches(self.frames, others, self.noise):
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
            points.append(self.space.project(x_recon[: _missing(points, MAX_RECON_POINTS)]))
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

    def encode_train(self, model: Autoencoder) -> tuple[LatentDensity, Tensor]:
        """The density of z over the training frames, and one z ~ q(z|x) of each, [m, L]."""
        posteriors = []
        for (frames,) in self.batches(self.train_frames):
            with self.autocast():
                posteriors.append(model.encoder(to_images(frames)))
        z = torch.cat([q.sample(noise) for q, (noise,) in zip(posteriors, self.batches(self.train_noise), strict=True)])
        return density_of(posteriors, self.config.density_components), z

    def decode(self, model: Autoencoder, latents: Tensor, layouts: FeatureSpace | None = None) -> Samples:
        """Images of latents [n, L], and their layouts if the space of those is given."""
        points: list[Tensor] = []
        blurred: list[Tensor] = []
        images: list[Tensor] = []
        for x in self.images(model, latents):
            points.append(self.space.project(x))
            blurred += [layouts.project(x)] if layouts else []
            images.append(x[: _missing(images, MAX_JUDGED)])
        return Samples(torch.cat(points), torch.cat(blurred or [points[0][:0]]), torch.cat(images))

    def images(self, model: Autoencoder, latents: Tensor) -> Iterator[Tensor]:
        """Batches of images [., 3, H, W] in [-1, 1] of latents [n, L]."""
        for (z,) in self.batches(latents):
            with self.autocast():
                x = model.decoder(z)
            yield x

    def batches(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Tensors [n, ...] side by side, in parts of at most `evaluate.batch_size`."""
        return zip(*(torch.split(tensor, self.config.batch_size) for tensor in tensors), strict=True)


def _missing(batches: list[Tensor], most: int) -> int:
    """Number of items still to take after these batches."""
    return max(0, most - sum(len(batch) for batch in batches))
