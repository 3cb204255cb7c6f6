"""Learning curves of several hundred random configurations on real frames, for replay.py: recorded once, kept here.

    python tests/benchmarks/record_curves.py                everything, about an hour on a core; goes on where it ended
    python tests/benchmarks/record_curves.py --minutes 30   no new training after that
    python tests/benchmarks/record_curves.py --pack         only write curves.json.gz from what is recorded

Configurations are points of a scrambled Sobol' sequence over curves.yaml, each trained with a seed of its own; some are
trained with several seeds, which says what a seed changes. Trainings are appended to runs/bench/curves.jsonl.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from scipy.stats import qmc

from search.config.load import load_sweep
from search.config.sweep import Sweep
from vaegan_core.data.doom.capture import capture_doom
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import PIXEL_MSE, SAMPLES_FD, Evaluation
from vaegan_core.metrics.frame_features import FrameFeatures, ensure_features
from vaegan_core.tensor_files import write_atomically
from vaegan_core.training.resolve import resolve
from vaegan_core.training.trainer import Trainer

HERE = Path(__file__).parent
SWEEP = HERE / "curves.yaml"
TABLE = HERE / "curves.json.gz"
RECORDING = Path("runs/bench/curves.jsonl")
NUM_FRAMES, HEIGHT, WIDTH = 2000, 18, 32
NUM_CONFIGURATIONS = 400
NUM_REPLICATED, NUM_SEEDS = 28, 3
OBJECTIVES = (PIXEL_MSE, SAMPLES_FD)


class UnitPoint:
    """Suggests the values that a point of the unit cube stands for, a coordinate per parameter of the space."""

    def __init__(self, coordinates: Mapping[str, float]) -> None:
        self.coordinates = coordinates

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[min(int(self.coordinates[name] * len(choices)), len(choices) - 1)]

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._within(name, FloatDistribution(low, high, log, step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self._within(name, IntDistribution(low, high, log, step)))

    def _within(self, name: str, range_: FloatDistribution | IntDistribution) -> float:
        share, (low, high) = self.coordinates[name], (range_.low, range_.high)
        if range_.log:
            return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        value = low + share * (high - low)
        return low + round((value - low) / range_.step) * range_.step if range_.step else value


def configurations(parameters: Mapping[str, BaseDistribution], count: int) -> list[UnitPoint]:
    """The first `count` points of a Sobol' sequence, whatever `count` is."""
    sequence = qmc.Sobol(len(parameters), seed=0).random(2 ** math.ceil(math.log2(count)))
    return [UnitPoint(dict(zip(parameters, map(float, point), strict=True))) for point in sequence[:count]]


def trainings() -> Iterator[tuple[int, int]]:
    """(configuration, replicate) in the order in which they are trained."""
    replicated = np.random.default_rng(0).permutation(NUM_CONFIGURATIONS)[:NUM_REPLICATED]
    for number in range(NUM_CONFIGURATIONS):
        for replicate in range(NUM_SEEDS if number in replicated else 1):
            yield number, replicate


def opened() -> tuple[FrameSet, FrameFeatures]:
    path = Path(load_sweep(SWEEP).config.base["frames"])
    if not path.exists():
        capture_doom(path, num_frames=NUM_FRAMES, height=HEIGHT, width=WIDTH, seed=0, progress=lambda _: None)
    frame_set = FrameSet.open(path)
    return frame_set, ensure_features(frame_set)


def record(sweep: Sweep, point: UnitPoint, seed: int, frame_set: FrameSet, features: FrameFeatures) -> dict[str, Any]:
    """One training: its parameters, the objectives of each evaluation, and the step where it diverged."""
    values = sweep.space.suggest(point)
    searched = sweep.space.parameters()
    config = resolve(sweep.trial(values | {"train.seed": seed}))
    reports: list[Evaluation] = []
    start = time.perf_counter()
    Trainer(config, frame_set, features).run(reports.append)
    seconds = time.perf_counter() - start
    curve = [
        [report.step, *(round(report.metrics[name], 6) for name in OBJECTIVES)] for report in reports if report.metrics
    ]
    diverged = next((report.step for report in reports if report.outcome == "diverged"), None)
    params = {name: value for name, value in values.items() if name in searched}
    return {"params": params, "curve": curve, "diverged": diverged, "seconds": round(seconds, 2)}


def recorded() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORDING.read_text().splitlines()] if RECORDING.exists() else []


def record_all(minutes: float) -> None:
    sweep, end = load_sweep(SWEEP), time.monotonic() + 60 * minutes
    frame_set, features = opened()
    points = configurations(sweep.space.parameters(), NUM_CONFIGURATIONS)
    done = {(entry["configuration"], entry["replicate"]) for entry in recorded()}
    RECORDING.parent.mkdir(parents=True, exist_ok=True)
    with RECORDING.open("a") as file:
        for number, replicate in trainings():
            if (number, replicate) in done or time.monotonic() > end:
                continue
            seed = number + NUM_CONFIGURATIONS * replicate
            entry = record(sweep, points[number], seed, frame_set, features)
            file.write(json.dumps({"configuration": number, "replicate": replicate} | entry) + "\n")
            file.flush()


def pack() -> None:
    """Writes the table: what was recorded, with the baselines that its numbers are measured against."""
    frame_set, features = opened()
    table = {
        "sweep": SWEEP.name,
        "frames": frame_set.fingerprint,
        "baselines": features.baselines | {"floor": features.floor},
        "objectives": OBJECTIVES,
        "trainings": recorded(),
    }
    write_atomically(TABLE, gzip.compress(json.dumps(table).encode(), 9, mtime=0))
    print(f"{TABLE.name}: {len(table['trainings'])} trainings, {TABLE.stat().st_size / 1024:.0f} KiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--pack", action="store_true")
    arguments = parser.parse_args()
    if not arguments.pack:
        record_all(arguments.minutes)
    pack()


if __name__ == "__main__":
    main()
