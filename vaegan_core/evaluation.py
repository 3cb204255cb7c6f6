"""Evaluation: all that leaves a trainer, as plain data with a byte form that cannot execute code."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

# Keys of the validation metrics; METRICS says what each one means
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
LAYOUT_FD = "val/layout_fd"
FITTED_LAYOUT_FD = "val/fitted_layout_fd"
PRIOR_GAP = "val/prior_gap"
DECODER_GAP = "val/decoder_gap"
EXPOST_GAP = "val/expost_gap"
GAP_FLOOR = "val/gap_floor"
NEAREST_TRAIN = "val/nearest_train"
DIVERSITY = "val/diversity"
DUPLICATES = "val/duplicates"
AUC_RECON = "val/auc_recon"
AUC_PRIOR = "val/auc_prior"
FEATURE_GAIN = "val/feature_gain"


class Metric(NamedTuple):
    """A validation metric of the averaged (EMA) weights, on the same frames and the same z in every trial."""

    key: str
    meaning: str
    better: Literal["less", "more"] | None = None
    """None: neither is better by itself."""
    objective: bool = False
    """True if a sweep may minimize it: less is better, and 0 is best."""
    always: bool = True
    """False: only at the last step, and only with `evaluate.inception_weights`."""
    positive: bool = True
    """False: it may be 0 or less in a sound model or a bad one, so that its logarithm says nothing."""


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric(PIXEL_MSE, "mean squared error of reconstructions of test frames, images in [-1, 1]", "less", True),
        Metric(SSIM, "structural similarity of reconstructions and test frames, at most 1", "more", positive=False),
        Metric(
            RECON_FD, "Fréchet distance of reconstructions to test frames in the frame set's features", "less", True
        ),
        Metric(PERMUTED_MSE_RATIO, "pixel MSE with another frame's code over pixel MSE; 1: the code says nothing"),
        Metric(
            LAYOUT_FD,
            "Fréchet distance of prior samples to train frames in the frame set's features, both blurred: only layout "
            "counts",
            "less",
            True,
        ),
        Metric(
            FITTED_LAYOUT_FD,
            "the same for samples whose z comes from a density fitted to q(z) over train frames",
            "less",
            True,
        ),
        Metric(
            SAMPLES_FD, "Fréchet distance of prior samples to train frames in the frame set's features", "less", True
        ),
        Metric(
            SAMPLES_KID,
            "kernel distance (KID) of prior samples to train frames in the same features",
            "less",
            True,
            positive=False,
        ),
        Metric(
            SAMPLES_SWD, "sliced Wasserstein distance of prior samples to train frames over all scales", "less", True
        ),
        Metric(SAMPLES_FID, "Fréchet Inception distance of prior samples to train frames", "less", always=False),
        Metric(
            PRIOR_GAP,
            "Fréchet distance of prior samples to the model's own reconstructions of train frames: z is wrong",
            "less",
            True,
        ),
        Metric(
            EXPOST_GAP,
            "the same for samples whose z comes from the fitted density: what is left of it with a better z",
            "less",
            True,
        ),
        Metric(GAP_FLOOR, "what both gaps of z come down to: as many reconstructions of other train frames"),
        Metric(
            DECODER_GAP,
            "Fréchet distance of reconstructions of train frames to train frames: the decoder is blurred",
            "less",
            True,
        ),
        Metric(
            NEAREST_TRAIN,
            "median distance of prior samples to the nearest train frame over that of unseen real frames; 0: memorized",
            positive=False,
        ),
        Metric(DIVERSITY, "median distance between prior samples over that between train frames", positive=False),
        Metric(
            DUPLICATES,
            "share of prior samples as near to another sample as the closest 1 % of real frames are to each other",
            positive=False,
        ),
        Metric(
            KL,
            "KL(q(z|x) || N(0, I)) in nats, summed over latent dimensions, averaged over test frames; "
            "absent for a deterministic encoder",
        ),
        Metric(KL_PER_DIM, "the same KL averaged over latent dimensions"),
        Metric(
            ACTIVE_UNITS,
            "latent dimensions whose posterior mean varies over test frames (variance > 0.01)",
            positive=False,
        ),
        Metric(
            AGGREGATE_DISTANCE,
            "squared Wasserstein-2 distance of z ~ q(z|x) over test frames to N(0, I), averaged over latent dimensions",
            "less",
            True,
        ),
        Metric(LATENT_OFFSET, "norm of the mean of posterior means over test frames, over the root of the latent size"),
        Metric(LATENT_RADIUS, "root mean square of z ~ q(z|x) over test frames; 1 for N(0, I)"),
        Metric(
            AUC_RECON,
            "area under D's ROC curve, test frames against their reconstructions; 0.5: D cannot tell",
            positive=False,
        ),
        Metric(
            AUC_PRIOR, "area under D's ROC curve, test frames against prior samples; 0.5: D cannot tell", positive=False
        ),
        Metric(FEATURE_GAIN, "squared change of D's features over that of the pixels, test frames to reconstructions"),
    )
}
"""Every validation metric once. Objectives, reports and documentation derive from this table."""

VALIDATION_METRICS = tuple(metric.key for metric in METRICS.values() if metric.always)
OBJECTIVES = tuple(metric.key for metric in METRICS.values() if metric.objective)

# Shares from the training curves since the previous evaluation, which the diagnoses use too (metrics/diagnoses.py)
SHARE_PRIOR_GRADIENT = "share/prior_gradient"
"""Share of the prior samples' terms in the norm of the decoder's gradient, 0 to 1; absent without such terms."""
SHARE_DISCRIMINATOR_LOSS = "share/discriminator_loss"
"""D's loss, without penalties, over its loss when it cannot tell real from fake; only with binary cross-entropy or
relativistic loss."""

# Image grids by key
RECONSTRUCTIONS = "reconstructions"
PRIOR_SAMPLES = "prior_samples"
FITTED_SAMPLES = "fitted_samples"

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
    """Validation metrics of the EMA weights at this step by key; empty when diverged."""
    points: tuple[Point, ...] = ()
    """Curve points since the previous Evaluation, validation metrics among them."""
    images: dict[str, bytes] = field(default_factory=dict)
    """PNG image grids by key."""
    reason: str = ""
    """Why the training diverged: the term and its step."""
    diagnoses: dict[str, bool | None] = field(default_factory=dict)
    """What the history up to this step shows (metrics/diagnoses.py); None: undefined so far. Empty when diverged."""

    def to_bytes(self) -> bytes:
        """Compressed JSON. Raises ValueError for a number that is not finite."""
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
        """The evaluation that `to_bytes` wrote."""
        content = json.loads(zlib.decompress(data))
        return cls(
            step=content["step"],
            outcome=content["outcome"],
            metrics=content["metrics"],
            points=tuple(Point(*point) for point in content["points"]),
            images={key: base64.b64decode(png) for key, png in content["images"].items()},
            reason=content["reason"],
            diagnoses=content.get("diagnoses", {}),  # older evaluations have none
        )
