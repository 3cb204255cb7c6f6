"""What the benchmarks train: the demo's size and the seed's, on the same captured frames."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from vaegan_core.config.trial import TrialConfig, parse_trial
from vaegan_core.data.doom.capture import capture_doom
from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.frame_features import FrameFeatures, ensure_features
from vaegan_core.training.resolve import resolve
from vaegan_core.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "search" / "sweeps" / "demo.yaml"
OUTPUT = Path("runs/bench")
NUM_FRAMES = 2000
KL = {"control": "fixed", "sigma": 0.2}

PLAIN = {"precision": "float32", "channels_last": False}
AUTO: dict[str, Any] = {}
OPTIONS: dict[str, dict[str, Any]] = {
    "float32": PLAIN,
    "float32, channels last": PLAIN | {"channels_last": True},
    "bfloat16": PLAIN | {"precision": "bfloat16"},
    "bfloat16, channels last": {"precision": "bfloat16", "channels_last": True},
    "float32, compiled": PLAIN | {"compile": True},
    "bfloat16, channels last, compiled": {"precision": "bfloat16", "channels_last": True, "compile": True},
}
"""Settings of `train` that must not change what is learned."""
SCHEMES = ("joint", "simultaneous", "per_term", "per_term_stale")


@dataclass(frozen=True)
class Size:
    name: str
    height: int
    width: int
    base: dict[str, Any]
    """A trial but for the KL control, as in a sweep's YAML."""
    batch: int
    rounds: int
    """How often every variant has its turn."""
    steps: int
    """In one turn."""
    schemes: tuple[str, ...]
    compiled: bool
    """Whether compiled variants are worth their minutes here."""
    kept: bool
    """Whether the trainers of all variants fit into memory together."""

    @property
    def label(self) -> str:
        return f"{self.name} size, {self.width}x{self.height}, batch {self.batch}"

    def quick(self) -> Size:
        return replace(self, rounds=2, steps=1, batch=min(self.batch, 4))


def sizes(on_gpu: bool) -> dict[str, Size]:
    """By name. The seed's size costs a CPU many seconds a step: few images, one step at a time."""
    demo = yaml.safe_load(DEMO.read_text())["base"]
    seed = {"model": {"latent_dim": 1024, "width": 64, "depth": 3}, "loss": {}, "train": {}}
    return {
        "demo": Size(
            "demo",
            27,
            48,
            demo,
            32,
            rounds=5 if on_gpu else 9,
            steps=50 if on_gpu else 5,
            schemes=SCHEMES,
            compiled=True,
            kept=True,
        ),
        "seed": Size(
            "seed",
            65,
            121,
            seed,
            64 if on_gpu else 16,
            rounds=5 if on_gpu else 2,
            steps=10 if on_gpu else 1,
            schemes=SCHEMES[:3],
            compiled=on_gpu,
            kept=False,
        ),
    }


def trial(size: Size, threads: int, *, steps: int, evaluate: dict[str, Any], **train: Any) -> TrialConfig:
    """A resolved configuration of this size; `train` overrides its training settings."""
    data = copy.deepcopy(size.base) | {"frames": "none", "evaluate": evaluate}
    data["loss"]["kl"] = KL
    data["train"] |= {"steps": steps, "batch_size": size.batch, "threads": threads} | train
    return resolve(parse_trial(data))


def rate_trainer(size: Size, threads: int, **train: Any) -> Trainer:
    """A trainer whose steps never make a curve point."""
    never = 1_000_000
    config = trial(size, threads, steps=never, evaluate={"every": never, "num_test": 8}, log_every=never, **train)
    return Trainer(config, frames(size.height, size.width), features())


@cache
def captured() -> FrameSet:
    """2,000 frames of ViZDoom at the demo's size, captured once."""
    path = OUTPUT / "frames"
    if not path.exists():
        capture_doom(path, num_frames=NUM_FRAMES, height=27, width=48, seed=0, progress=lambda _: None)
    return FrameSet.open(path)


@cache
def features() -> FrameFeatures:
    return ensure_features(captured())


@cache
def frames(height: int, width: int) -> FrameSet:
    """The captured frames, enlarged and cut where they are too small."""
    frame_set = captured()
    factor = -(-height // frame_set.manifest.height)
    if factor == 1:
        return frame_set
    large = np.repeat(np.repeat(frame_set.frames, factor, axis=1), factor, axis=2)[:, :height, :width]
    manifest = frame_set.manifest.model_copy(update={"height": height, "width": width})
    return FrameSet(np.ascontiguousarray(large), manifest)


def synchronize() -> None:
    """Waits for the device, where there is one to wait for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
