"""The promoted model as MLflow serves it: loaded from this file ("models from code") and safetensors, never a pickle.

Input: uint8 frames [n, H, W, 3]. The parameter `mode` chooses what comes out:
    reconstruct   uint8 frames [n, H, W, 3], decoded from the posterior mean
    sample        as many samples as there are input frames, from `seed`; uint8 [n, H, W, 3]
    encode        float32 posterior means [n, latent_dim]

The parameter `sampler` chooses what z of samples is drawn from:
    fitted        the ex-post density: fitted to z of training frames (Ghosh et al. 2020); the default
    prior         N(0, I); the default of a model that an earlier version trained, without such a density
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch

from vaegan_core.data.batches import as_tensor, to_frames, to_images
from vaegan_core.model.saved import load_model

MODES = ("reconstruct", "sample", "encode")


class ServedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """The averaged autoencoder behind MLflow's pyfunc interface; see the module for inputs and outputs."""

    def load_context(self, context: Any) -> None:
        size = json.loads(Path(context.artifacts["size"]).read_text())
        self.size = (size["height"], size["width"])
        self.saved = load_model(Path(context.artifacts["weights"]), self.size)

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:  # noqa: ARG002
        params = params or {}
        mode = params.get("mode", "reconstruct")
        frames = np.asarray(model_input)
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, but got {mode!r}")
        if frames.ndim != 4 or frames.shape[1:] != (*self.size, 3) or frames.dtype != np.uint8:
            expected = f"uint8 frames [n, {self.size[0]}, {self.size[1]}, 3]"
            raise ValueError(f"input must be {expected}, but got {frames.dtype} {frames.shape}")
        if mode == "sample":
            generator = torch.Generator().manual_seed(int(params.get("seed", 0)))
            noise = torch.randn(len(frames), self.saved.latent_dim, generator=generator)
            return to_frames(self.saved.sample(noise, params.get("sampler"))).numpy()
        mean = self.saved.encode(to_images(as_tensor(frames)))
        return mean.numpy() if mode == "encode" else to_frames(self.saved.decode(mean)).numpy()


mlflow.models.set_model(ServedModel())
