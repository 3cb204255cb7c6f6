"""Evaluation: the only thing that leaves a trainer. Plain data, with a byte form that cannot execute code."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

# Validation metrics (evaluate.py says what they mean) and image grids, by key
PIXEL_MSE = "val/pixel_mse"
SAMPLES_FD = "val/samples_fd"
KL = "val/kl"
KL_PER_DIM = "val/kl_per_dim"
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

    def to_bytes(self) -> bytes:
        content: dict[str, Any] = {
            "step": self.step,
            "outcome": self.outcome,
            "metrics": self.metrics,
            "points": [list(point) for point in self.points],
            "images": {key: base64.b64encode(png).decode() for key, png in self.images.items()},
            "reason": self.reason,
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
        )
