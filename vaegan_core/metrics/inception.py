"""Inception's view of images: the Fréchet Inception distance, `val/samples_fid` (Heusel et al. 2017, sec. 4).

The network is torch-fidelity's, its weights a file that the user names with `evaluate.inception_weights`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vaegan_core.data.batches import as_tensor, evenly_spaced, to_frames
from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.distances import frechet_distance, gaussian_moments

WEIGHTS_FILE = "weights-inception-2015-12-05-6726825d.pth"
FEATURES = "2048"
BLOCK = 16
"""Images that go through the network at once: each takes tens of megabytes on its way."""


class Inception:
    """The network, with the moments of every set of real frames that it was compared with."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._real: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    @torch.inference_mode()
    def distance(self, images: Iterable[Tensor], frame_set: FrameSet, num_frames: int, device: torch.device) -> float:
        """Fréchet distance between batches of images [n, 3, H, W] in [-1, 1] and `num_frames` training frames.

        The frames are evenly spread, all of them if there are fewer. Few images bias it upward (Chong & Forsyth 2020):
        with fewer than tens of thousands, compare it at the same number of images only.
        """
        key = (frame_set.fingerprint, num_frames)
        if key not in self._real:
            train = as_tensor(frame_set.train)
            indices = torch.from_numpy(evenly_spaced(len(train), num_frames))
            self._real[key] = self._moments(train[block].to(device) for block in torch.split(indices, BLOCK))
        return frechet_distance(*self._real[key], *self._moments(to_frames(batch) for batch in images))

    def _moments(self, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the features of batches of uint8 frames [n, H, W, 3]."""
        return gaussian_moments(self._features(batches))

    def _features(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        for batch in batches:
            network = self.network.to(batch.device)
            for frames in torch.split(batch, BLOCK):
                yield network(frames.permute(0, 3, 1, 2))[0]


@lru_cache(maxsize=1)
def load_inception(path: str) -> Inception:
    """Inception with the weights in the file at `path`, read once per process; never downloads.

    Raises ValueError when torch-fidelity is not installed, or the file does not exist or is not torch-fidelity's.
    """
    try:
        from torch_fidelity import FeatureExtractorInceptionV3  # optional, and takes seconds to import
    except ImportError as error:
        raise ValueError(
            "evaluate.inception_weights needs the package torch-fidelity, which is not installed; "
            "run pip install 'vaegan-search[inception]', or remove the setting"
        ) from error
    # torch-fidelity unpickles whatever its file holds, so it gets a buffer of the tensors read safely here.
    buffer = io.BytesIO()
    torch.save(_read_tensors(path), buffer)
    buffer.seek(0)
    try:
        with torch.random.fork_rng(devices=[]):
            network = FeatureExtractorInceptionV3("inception", [FEATURES], feature_extractor_weights_path=buffer)
    except RuntimeError:
        raise ValueError(_refusal(path, "holds the tensors of another network")) from None
    return Inception(network.to(memory_format=torch.channels_last))


def _read_tensors(path: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise ValueError(_refusal(path, "does not exist"))
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises nearly anything for a damaged file
        raise ValueError(_refusal(path, f"cannot be read as tensors alone ({type(error).__name__})")) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(_refusal(path, "holds something else"))
    return content


def _refusal(path: str, problem: str) -> str:
    """The error for a file that `evaluate.inception_weights` must not name."""
    return (
        f"evaluate.inception_weights must name torch-fidelity's file of Inception weights ({WEIGHTS_FILE}), "
        f"but {path} {problem}; correct the path, or remove the setting"
    )
