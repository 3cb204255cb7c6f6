"""A trained autoencoder read back from its file, with the density that it samples from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vaegan_core.config import parse_trial
from vaegan_core.model.latent_density import PREFIX, LatentDensity
from vaegan_core.model.networks import Autoencoder
from vaegan_core.tensor_files import load_tensors


@dataclass(frozen=True)
class SavedModel:
    """The averaged autoencoder of a training, in evaluation mode on the CPU."""

    autoencoder: Autoencoder
    density: LatentDensity | None
    """Fitted to z of training frames; None in files of versions before 0.2."""
    latent_dim: int

    @torch.inference_mode()
    def sample(self, noise: Tensor, *, fitted: bool) -> Tensor:
        """Images [n, 3, H, W] in [-1, 1] of z from noise ~ N(0, I) [n, latent_dim]: from the density, or noise itself.

        Raises ValueError for a fitted density that the file does not hold.
        """
        if not fitted:
            images: Tensor = self.autoencoder.decoder(noise)
            return images
        if self.density is None:
            raise ValueError(
                "the sampler must be prior, got fitted: this model was stored without a fitted density, by an "
                "earlier version"
            )
        return self.sample(self.density.sample(noise), fitted=False)


def load_model(path: Path, size: tuple[int, int]) -> SavedModel:
    """What `Trainer.save_model` wrote; `size` is (H, W) of its frames. Raises DamagedCheckpoint for a damaged file."""
    tensors, metadata = load_tensors(path)
    config = parse_trial(metadata["config"], str(path)).model
    model = Autoencoder(config, size)
    model.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith(f"{PREFIX}/")})
    return SavedModel(model.eval(), LatentDensity.from_tensors(tensors), config.latent_dim)
