"""What a training costs in arithmetic, counted rather than timed: one that `vaegan train` would run.

    python tests/benchmarks/compute.py search/sweeps/night.yaml --point best-of-the-first-night

`--set base.train.steps=N` says what N steps cost, so that two trainings can be given equal budgets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from throughput import FlopCounter

from search.local.train import load_single
from vaegan_core.config.trial import TrialConfig
from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.frame_features import ensure_features
from vaegan_core.training.resolve import resolve
from vaegan_core.training.trainer import Trainer

COUNTED = 16
"""Steps counted in each part of a training: what happens every few steps (R1) is among them."""


def gflops_per_step(config: TrialConfig) -> list[tuple[int, float]]:
    """Number of steps of each part of a training, before GAN terms act and after, and GFLOP of a step there."""
    frame_set = FrameSet.open(config.frames)
    trainer = Trainer(config, frame_set, ensure_features(frame_set))
    begin = round(config.loss.start * config.train.steps)
    found = []
    for first, end in ((0, begin), (begin, config.train.steps)):
        if first < end:
            trainer.step = first
            with trainer.runtime(), FlopCounter() as counter:
                for _ in range(COUNTED):
                    trainer.train_step()
            found.append((end - first, counter.flops / COUNTED / 1e9))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trial", type=Path)
    parser.add_argument("--point")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    given = parser.parse_args()
    config = resolve(load_single(given.trial, given.overrides, given.point))
    parts = gflops_per_step(config)
    for steps, gflops in parts:
        print(f"{steps:,} steps of {gflops:.3g} GFLOP")
    print(f"{sum(steps * gflops for steps, gflops in parts) / 1000:.3g} TFLOP in all, validation not counted")


if __name__ == "__main__":
    main()
