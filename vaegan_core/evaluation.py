"""Evaluation: the only thing that leaves a trainer. Plain data, with a byte form that cannot execute code."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

# Validation metrics by key; evaluate.py computes them, and says with which images
PIXEL_MSE = "val/pixel_mse"
SSIM = "val/ssim"
RECON_FD = "val/recon_fd"
PERMUTED_MSE_RATIO = "val/permuted_mse_ratio"
KL = "val/kl"
KL_PER_DIM = "val/kl_per_dim"
ACTIVE_UNITS = "val/active_units"
AGGREGATE_DISTANCE = "val/aggregate_distance"
LATENT_OFFSET = "val/latent_offset"
LATENT_RADIUS = "val/latent_radius"
SAMPLES_FD = "val/samples_fd"
SAMPLES_KID = "val/samples_kid"
SAMPLES_SWD = "val/samples_swd"
SAMPLES_FID = "val/samples_fid"
"""At the last step, and only with `evaluate.inception_weights`."""
NEAREST_TRAIN = "val/nearest_train"
DIVERSITY = "val/diversity"
DUPLICATES = "val/duplicates"
AUC_RECON = "val/auc_recon"
AUC_PRIOR = "val/auc_prior"
FEATURE_GAIN = "val/feature_gain"

VALIDATION_METRICS = (
    *(PIXEL_MSE, SSIM, RECON_FD, PERMUTED_MSE_RATIO),
    *(KL, KL_PER_DIM, ACTIVE_UNITS, AGGREGATE_DISTANCE, LATENT_OFFSET, LATENT_RADIUS),
    *(SAMPLES_FD, SAMPLES_KID, SAMPLES_SWD, NEAREST_TRAIN, DIVERSITY, DUPLICATES),
    *(AUC_RECON, AUC_PRIOR, FEATURE_GAIN),
)

# Means of training curves since the previous evaluation, which the diagnoses need besides (diagnoses.py)
SHARE_PRIOR_GRADIENT = "share/prior_gradient"
"""Of the prior samples' terms in the norm of the decoder's gradient, 0 to 1; absent without such terms."""
SHARE_DISCRIMINATOR_LOSS = "share/discriminator_loss"
"""D's loss over its chance value; only with binary cross-entropy."""

# Image grids by key
RECONSTRUCTIONS = "reconstructions"
PRIOR_SAMPLES = "prior_samples"

Outcome = Literal["running", "completed", "diverged"]


class Point(NamedTuple):
    """One value of one curve. `time` is Unix time in milliseconds."""

    key: str
    step: int
    value: float
    time: int


@dataclass(frozen=True)
class Evaluation:
    """A trial's state after `step` optimizer steps. Every number in it is finite."""

    step: int
    outcome: Outcome
    metrics: dict[str, float] = field(default_factory=dict)
    """Validation of EMA weights at this step; empty when diverged."""
    points: tuple[Point, ...] = ()
    """Curve points since the previous Evaluation, validation metrics among them."""
    images: dict[str, bytes] = field(default_factory=dict)
    """PNG image grids by key."""
    reason: str = ""
    """Why the training diverged: the term and its step."""
    diagnoses: dict[str, bool | None] = field(default_factory=dict)
    """What the history up to this step shows (diagnoses.py); None where it cannot be told, empty when diverged."""

    def to_bytes(self) -> bytes:
        content: dict[str, Any] = {
            "step": self.step,
            "outcome": self.outcome,
            "metrics": self.metrics,
            "points": [list(point) for point in self.points],
            "images": {key: base64.b64encode(png).decode() for key, png in self.images.items()},
            "reason": self.reason,
            "diagnoses": self.diagnoses,
        }
        return zlib.compress(json.dumps(content, allow_nan=False).encode(), level=1)

    @classmethod
    def from_bytes(cls, data: bytes) -> Evaluation:
        content = json.loads(zlib.decompress(data))
        return cls(
            step=content["step"],
            outcome=content["outcome"],
            metrics=content["metrics"],
            points=tuple(Point(*point) for point in content["points"]),
            images={key: base64.b64decode(png) for key, png in content["images"].items()},
            reason=content["reason"],
            diagnoses=content.get("diagnoses", {}),  # not in evaluations of before the diagnoses
        )
