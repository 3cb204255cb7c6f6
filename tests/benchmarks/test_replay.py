"""The benchmark's virtual clock, with made-up trainings. Its surrogate needs scikit-learn."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import methods
import replay
from recording import OBJECTIVES, SWEEP
from surrogate import Encoding, Surrogate, Table, Training
from yardstick import Yardstick

from search.config.load import load_sweep

STEPS = (60, 180, 270, 540, 810, 1080, 1350, 1620)
LR = "optimizer.autoencoder.lr"


class Fixed:
    """Every trial goes on to its end."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, str]] = []

    def suggest(self, run: str) -> tuple[str, dict[str, Any]]:
        return run, {}

    def report(self, run: str, step: int, metrics: dict[str, float], outcome: str) -> bool:  # noqa: ARG002
        self.seen.append((run, step, outcome))
        return outcome == "running"


class Pausing(Fixed):
    """Stops the first at its first report, and lets it go on in the next run."""

    def suggest(self, run: str) -> tuple[str, dict[str, Any]]:
        return "first" if run in ("run-0", "run-2") else run, {}

    def report(self, run: str, step: int, metrics: dict[str, float], outcome: str) -> bool:
        return super().report(run, step, metrics, outcome) and run != "run-0"


def training(value: float = 1.0, diverged: int | None = None) -> Training:
    return Training([(step, (value, value)) for step in STEPS if diverged is None or step < diverged], diverged)


def test_trials_report_in_the_order_of_the_clock() -> None:
    method = Fixed()
    replayed = replay.replay(method, lambda _, number: training(diverged=180 if number == 0 else None), 4, 1e9, 4)
    assert len(replayed.ended) == 3, "one of the four diverged"
    assert method.seen[:5] == [*((f"run-{n}", 60, "running") for n in range(4)), ("run-0", 180, "diverged")]
    assert replayed.spent == 180 + 3 * 1620 + 1350, "a new trial began in the free slot"


def test_a_stopped_trial_goes_on_where_it_was() -> None:
    method = Pausing()
    replay.replay(method, lambda *_: training(), 2, 700, 10)
    assert [(step, outcome) for run, step, outcome in method.seen if run in ("run-0", "run-2")][:3] == [
        (60, "running"),
        (180, "running"),
        (270, "running"),
    ]


def test_a_diverged_training_reports_what_came_before() -> None:
    outcomes = [(step, outcome) for step, _, outcome in replay.reports(training(diverged=270))]
    assert outcomes == [(60, "running"), (180, "running"), (270, "diverged")]
    assert replay.reports(training())[-1][0::2] == (1620, "completed")


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_finds_the_better_half(name: str, tmp_path: Path) -> None:
    """Trials with a high learning rate are bad in both objectives from the start: early stopping ends them."""
    sweep = load_sweep(SWEEP)

    def draw(params: dict[str, Any], number: int) -> Training:
        return training(params[LR] * (1 + 1e-6 * number))

    def truth(params: dict[str, Any]) -> dict[str, float]:
        return dict.fromkeys(OBJECTIVES, params[LR])

    method = methods.make_method(name, sweep, 0, tmp_path, 4, truth)
    replayed = replay.replay(method, draw, 4, 1620 * 8, 1000)
    complete = [each.params[LR] for each in replayed.ended]
    if name == methods.RANDOM or name.endswith("no stopping"):
        assert replayed.trials <= len(complete) + 4
    else:
        assert replayed.trials > 2 * len(complete)
        assert np.median(complete) < np.sqrt(3e-4 * 1e-2), "the middle of the range"


def test_the_encoding_tells_every_configuration_apart() -> None:
    sweep = load_sweep(SWEEP)
    encode = Encoding(sweep.space.parameters())
    rng = np.random.default_rng(0)
    vectors = np.array([encode(methods.random_point(sweep.space, rng)) for _ in range(32)])
    assert len(np.unique(vectors, axis=0)) == 32
    assert vectors.min() >= 0
    assert vectors.max() <= 1


def test_quality_is_that_of_the_recommended_trial_without_its_noise() -> None:
    yardstick = Yardstick(made_up(), np.array([1.0, 1.0]), np.array([0.01, 0.01]), 0.1, (np.zeros(0), []))
    lucky, good = ({name: value for name in OBJECTIVES} for value in (0.04, 0.05))  # noqa: C420
    true_of_lucky, true_of_good = ({name: value for name in OBJECTIVES} for value in (0.09, 0.045))  # noqa: C420
    assert yardstick.quality([lucky, good], [true_of_lucky, true_of_good])[0] == yardstick.g(true_of_lucky)
    assert yardstick.quality([], []) == (np.inf, 0.0)


def made_up() -> Surrogate:
    """A surrogate of thirty made-up trainings, ten of them repeated."""
    sweep, rng = load_sweep(SWEEP), np.random.default_rng(0)
    points = [methods.random_point(sweep.space, rng) for _ in range(20)]
    trainings = [
        {
            "configuration": number % 20,
            "params": points[number % 20],
            "curve": [[step, *(0.1 + rng.random(2) / step)] for step in STEPS],
            "diverged": None,
        }
        for number in range(30)
    ]
    baselines = {"mean_color_mse": 0.2, "mean_color_layout_fd": 1.0, "floor_layout_fd": 0.01}
    return Surrogate(Table.of(sweep, trainings, baselines), "trees")
