"""The benchmark's virtual clock, with made-up trainings. Its surrogate needs scikit-learn, of the bench extra."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the surrogate of the replay needs scikit-learn, of the bench extra")
sys.path.insert(0, str(Path(__file__).parent))

import replay
from record_curves import SWEEP, configurations
from surrogate import Encoding, Training

from search.config.load import load_sweep

STEPS = (30, 60, 90, 120, 150, 180, 210, 240, 270)


class Fixed:
    """Every trial goes on to its end."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, str]] = []

    def suggest(self, trial_id: str) -> dict[str, Any]:
        return {"trial": trial_id}

    def report(self, trial_id: str, step: int, metrics: dict[str, float], outcome: str) -> bool:  # noqa: ARG002
        self.seen.append((trial_id, step, outcome))
        return outcome == "running"


def training(value: float = 1.0, diverged: int | None = None) -> Training:
    return Training([(step, (value, value)) for step in STEPS if diverged is None or step < diverged], diverged)


def test_trials_report_in_the_order_of_the_clock() -> None:
    method = Fixed()
    ended = replay.replay(method, lambda _, number: training(diverged=60 if number == 0 else None), 1e9, 4)
    assert ended[0].spent == 150, "all four have reported step 30, and one of them step 60"
    assert [each.complete for each in ended] == [False, True, True, True]
    assert method.seen[:5] == [*((f"trial-{n}", 30, "running") for n in range(4)), ("trial-0", 60, "diverged")]


def test_a_diverged_training_reports_what_came_before() -> None:
    outcomes = [(step, outcome) for step, _, outcome in replay.reports(training(diverged=90))]
    assert outcomes == [(30, "running"), (60, "running"), (90, "diverged")]
    assert replay.reports(training())[-1][0::2] == (270, "completed")


@pytest.mark.parametrize("name", replay.METHODS)
def test_every_method_finds_the_better_half(name: str, tmp_path: Path) -> None:
    """Trials with a high learning rate are bad in both objectives from the start: early stopping ends them."""
    sweep = load_sweep(SWEEP)

    def draw(params: dict[str, Any], number: int) -> Training:
        return training(params["optimizer.autoencoder.lr"] * (1 + 1e-6 * number))

    ended = replay.replay(replay.make_method(name, sweep, 0, tmp_path), draw, 270 * 8, 1000)
    complete = [each.params["optimizer.autoencoder.lr"] for each in ended if each.complete]
    if name == replay.RANDOM:
        assert len(complete) == len(ended)
    else:
        stopped = [each.params["optimizer.autoencoder.lr"] for each in ended if not each.complete]
        assert np.median(complete) < np.median(stopped)


def test_the_encoding_tells_every_configuration_apart() -> None:
    sweep = load_sweep(SWEEP)
    encode = Encoding(sweep.space.parameters())
    points = [sweep.space.suggest(point) for point in configurations(sweep.space.parameters(), 32)]  # type: ignore[arg-type]
    vectors = np.array([encode(point) for point in points])
    assert len(np.unique(vectors, axis=0)) == 32
    assert vectors.min() >= 0
    assert vectors.max() <= 1
