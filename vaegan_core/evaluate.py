"""Validation of the averaged (EMA) weights: reconstruction of test frames, prior samples, image grids."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vaegan_core.config import EvaluateConfig
from vaegan_core.evaluation import KL, KL_PER_DIM, PIXEL_MSE, PRIOR_SAMPLES, RECONSTRUCTIONS, SAMPLES_FD
from vaegan_core.features import FrameFeatures
from vaegan_core.frames import FrameSet, as_tensor, to_frames, to_images
from vaegan_core.losses import gaussian_kl_divergence
from vaegan_core.models import Autoencoder

EVALUATION_SEED = 20190411
GRID_COLUMNS = 8
GRID_FRAMES = 16
GRID_SAMPLES = 32


class Evaluator:
    """Holds what stays the same in every evaluation: test frames, posterior noise, prior z, reference statistics."""

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
        test = as_tensor(frame_set.test)
        self.frames = test[_evenly(len(test), config.num_test)].to(device)
        self.grid_frames = test[_evenly(len(test), GRID_FRAMES)].to(device)
        generator = torch.Generator().manual_seed(EVALUATION_SEED)
        self.z_prior = torch.randn(config.num_samples, latent_dim, generator=generator).to(device)
        self.noise = torch.randn(len(self.frames), latent_dim, generator=generator).to(device)

    @torch.inference_mode()
    def metrics(self, model: Autoencoder) -> dict[str, float]:
        """Validation metrics of `model` in evaluation mode.

        `val/pixel_mse`: mean squared error on [-1, 1] of G(z), z ~ q(z|x), over test frames. `val/kl` (nats per image)
        and `val/kl_per_dim`: over the same frames. `val/samples_fd`: features.py, prior samples against train frames.
        """
        squared_error = kl = torch.zeros((), device=self.frames.device)
        for frames, noise in zip(
            *(torch.split(each, self.batch_size) for each in (self.frames, self.noise)), strict=True
        ):
            x = to_images(frames)
            with self.autocast():
                posterior = model.encoder(x)
                x_recon = model.decoder(posterior.sample(noise))
            squared_error = squared_error + (x_recon - x).square().mean() * len(x)
            kl = kl + gaussian_kl_divergence(posterior) * len(x)
        kl_nats = float(kl) / len(self.frames)
        return {
            PIXEL_MSE: float(squared_error) / len(self.frames),
            SAMPLES_FD: self.features.distance(self._prior_samples(model)),
            KL: kl_nats,
            KL_PER_DIM: kl_nats / self.z_prior.shape[1],
        }

    def _prior_samples(self, model: Autoencoder) -> Iterator[Tensor]:
        for z in torch.split(self.z_prior, self.batch_size):
            with self.autocast():
                x_prior = model.decoder(z)
            yield x_prior

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
        return {RECONSTRUCTIONS: _png(torch.cat(rows)), PRIOR_SAMPLES: _png(samples)}


def _evenly(count: int, wanted: int) -> Tensor:
    """`wanted` indices (or all) spread evenly over range(count), first and last included."""
    return torch.linspace(0, count - 1, min(count, wanted)).round().long()


def _png(images: Tensor) -> bytes:
    from torchvision.utils import make_grid  # takes seconds to import, and only whoever draws needs it

    grid = make_grid(images, nrow=GRID_COLUMNS, padding=1, pad_value=1.0)
    buffer = io.BytesIO()
    Image.fromarray(to_frames(grid.unsqueeze(0))[0].cpu().numpy()).save(buffer, format="PNG")
    return buffer.getvalue()
