"""The promoted model as MLflow serves it: loaded from this file ("models from code") and safetensors, never a pickle.

The parameter `mode` chooses what goes in and what comes out:
    reconstruct   uint8 frames [n, H, W, 3] -> as many, decoded from the posterior mean; the default
    encode        uint8 frames [n, H, W, 3] -> float32 posterior means [n, latent_dim]
    decode        latents [n, latent_dim] -> uint8 frames [n, H, W, 3]
    sample        an empty array (`[[]]` in JSON) -> `count` frames from `seed`; uint8 [count, H, W, 3]

Frames may come as any whole numbers from 0 to 255, as JSON brings them. Given frames and no `count`, `sample` gives as
many samples as there are frames. The parameter `sampler` chooses what z of samples is drawn from:
    fitted        the ex-post density: fitted to z of training frames (Ghosh et al. 2020); the default
    prior         N(0, I); the default of a model that an earlier version trained, without such a density
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.exceptions import INVALID_PARAMETER_VALUE, MlflowException
from torch import Tensor

from vaegan_core.data.batches import as_tensor, to_frames, to_images
from vaegan_core.model.saved import SavedModel, load_model
from vaegan_core.spelling import did_you_mean

MODES = ("reconstruct", "encode", "decode", "sample")
MAX_COUNT = 10_000
"""Samples of one call."""
FRAMES_NDIM = 4
WHOLE = "buif"
"""Kinds of NumPy's types that may hold whole numbers."""


class Refused(MlflowException, ValueError):  # type: ignore[misc]
    """Input that the model does not take; MLflow's server answers its own exceptions with 400 and their message."""

    def __init__(self, sentence: str) -> None:
        MlflowException.__init__(self, sentence, error_code=INVALID_PARAMETER_VALUE)


class ServedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """The averaged autoencoder behind MLflow's pyfunc interface; see the module for inputs and outputs."""

    saved: SavedModel

    def load_context(self, context: Any) -> None:
        size = json.loads(Path(context.artifacts["size"]).read_text())
        self.size = (size["height"], size["width"])
        self.saved = load_model(Path(context.artifacts["weights"]), self.size)

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:  # noqa: ARG002
        params = params or {}
        mode = params.get("mode", "reconstruct")
        if mode not in MODES:
            raise Refused(f"mode must be one of {', '.join(MODES)}, but got {mode!r}{did_you_mean(mode, MODES)}")
        given = _plain(model_input)
        if mode == "sample":
            return to_frames(self._sample(given, params)).numpy()
        if mode == "decode":
            return to_frames(self.saved.decode(self._latents(given))).numpy()
        mean = self.saved.encode(self._frames(given, mode))
        return mean.numpy() if mode == "encode" else to_frames(self.saved.decode(mean)).numpy()

    def _sample(self, given: np.ndarray, params: Mapping[str, Any]) -> Tensor:
        count = int(params.get("count") or (len(given) if given.ndim == FRAMES_NDIM else 0))
        if not 0 < count <= MAX_COUNT:
            raise Refused(f"count must be from 1 to {MAX_COUNT:,}, but got {count}; it is the number of samples")
        generator = torch.Generator().manual_seed(int(params.get("seed") or 0))
        noise = torch.randn(count, self.saved.latent_dim, generator=generator)
        try:
            return self.saved.sample(noise, params.get("sampler"))
        except ValueError as error:
            raise Refused(str(error)) from None

    def _latents(self, given: np.ndarray) -> Tensor:
        expected = f"latents [n, {self.saved.latent_dim}]"
        if given.ndim != 2 or given.shape[1] != self.saved.latent_dim or given.dtype.kind not in WHOLE:
            raise Refused(f"input of mode decode must be {expected}, but got {given.dtype} {list(given.shape)}")
        if not len(given) or not np.isfinite(given).all():
            raise Refused(f"input of mode decode must be {expected}, one at least and all finite")
        return torch.from_numpy(given.astype(np.float32))

    def _frames(self, given: np.ndarray, mode: str) -> Tensor:
        expected = f"input of mode {mode} must be uint8 frames [n, {self.size[0]}, {self.size[1]}, 3]"
        if given.ndim != 4 or given.shape[1:] != (*self.size, 3) or not len(given) or given.dtype.kind not in WHOLE:
            raise Refused(f"{expected}, but got {given.dtype} {list(given.shape)}")
        frames = given if given.dtype == np.uint8 else given.astype(np.float64)
        if frames.dtype != np.uint8 and not ((frames >= 0) & (frames <= 255) & (frames == np.floor(frames))).all():
            raise Refused(f"{expected}, but got other numbers than whole ones from 0 to 255")
        return to_images(as_tensor(frames.astype(np.uint8)))


def _plain(given: Any) -> np.ndarray:
    """The input as one array of numbers; MLflow may hand on an array of objects."""
    try:
        array = np.asarray([] if given is None else given)
        return np.asarray(array.tolist()) if array.dtype == object else array
    except ValueError:
        raise Refused("input must be one array, but got lists of different lengths") from None


mlflow.models.set_model(ServedModel())
