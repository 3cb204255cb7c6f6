"""A trained autoencoder read back from its file, with the density that it samples from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from vaegan_core.config.trial import parse_trial
from vaegan_core.data.batches import BLOCK
from vaegan_core.model.latent_density import PREFIX, LatentDensity
from vaegan_core.model.networks import Autoencoder
from vaegan_core.tensor_files import load_tensors

Sampler = Literal["fitted", "prior"]
"""Where z of a sample comes from: the ex-post density, fitted to z of training frames, or the prior N(0, I)."""


@dataclass(frozen=True)
class SavedModel:
    """The averaged autoencoder of a training, in evaluation mode on the CPU."""

    autoencoder: Autoencoder
    density: LatentDensity | None
    """Fitted to z of training frames; None in files of versions before 0.2."""
    latent_dim: int
    size: tuple[int, int]
    """(H, W) of its frames."""

    @property
    def sampler(self) -> Sampler:
        """The sampler it has by default: fitted, or prior for a file without a density."""
        return "prior" if self.density is None else "fitted"

    def sample(self, noise: Tensor, sampler: str | None = None) -> Tensor:
        """Images [n, 3, H, W] in [-1, 1], decoded from z made of noise ~ N(0, I) [n, latent_dim] by the sampler.

        Raises ValueError for an unknown sampler, and for fitted where the file holds no density.
        """
        sampler = sampler or self.sampler
        if sampler not in get_args(Sampler):
            raise ValueError(f"the sampler must be {' or '.join(get_args(Sampler))}, but got {sampler!r}")
        if sampler == "prior":
            return self.decode(noise)
        if self.density is None:
            raise ValueError(
                "the sampler must be prior, but got 'fitted': this model was stored without a fitted density, by an "
                "earlier version"
            )
        return self.decode(self.density.sample(noise))

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """Posterior means [n, latent_dim] of images [n, 3, H, W] in [-1, 1]."""
        return torch.cat([self.autoencoder.encoder(block).mean for block in torch.split(images, BLOCK)])

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Tensor:
        """Images [n, 3, H, W] in [-1, 1] of z [n, latent_dim]."""
        return torch.cat([self.autoencoder.decoder(block) for block in torch.split(z, BLOCK)])


def load_model(path: Path, size: tuple[int, int] | None = None) -> SavedModel:
    """What `Trainer.save_model` wrote; `size` is (H, W) of its frames, for files of versions before 0.2.

    Raises DamagedCheckpoint for a damaged file, and ValueError for one that holds no model, or no size.
    """
    tensors, metadata = load_tensors(path)
    size = size or metadata.get("size")
    if size is None:
        raise ValueError(
            f"{path} does not say how large its frames are: it is no model, or one of an earlier version, which has "
            "its size only where it is registered; register it and name the registered model"
        )
    config = parse_trial(metadata.get("config", {}), str(path)).model
    model = Autoencoder(config, (size[0], size[1]))
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{PREFIX}/")}
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise ValueError(f"{path} does not hold the weights of an autoencoder of its configuration") from None
    return SavedModel(model.eval(), LatentDensity.from_tensors(tensors), config.latent_dim, (size[0], size[1]))
