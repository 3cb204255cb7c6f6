"""A trained autoencoder read back from its file."""

from __future__ import annotations

from pathlib import Path

from vaegan_core.config import parse_trial
from vaegan_core.model.networks import Autoencoder
from vaegan_core.tensor_files import load_tensors


def load_model(path: Path, size: tuple[int, int]) -> Autoencoder:
    """The autoencoder written by `Trainer.save_model`, in evaluation mode on the CPU; `size` is (H, W) of its frames.

    Raises DamagedCheckpoint for a damaged file.
    """
    tensors, metadata = load_tensors(path)
    model = Autoencoder(parse_trial(metadata["config"], str(path)).model, size)
    model.load_state_dict(tensors)
    return model.eval()
