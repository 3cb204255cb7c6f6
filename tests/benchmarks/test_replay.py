"""The benchmark's virtual clock, with made-up trainings. Its surrogate needs scikit-learn."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.samplers._tpe import sampler as tpe

sys.path.insert(0, str(Path(__file__).parent))

import methods
import quality
import replay
import yardstick as yardstick_module
from recording import OBJECTIVES, SWEEP
from surrogate import Encoding, Surrogate, Table, Training, Trees
from yardstick import Yardstick

from search.config.load import load_sweep
from search.config.sweep import Sweep

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


def with_an_early_rung() -> Sweep:
    """What is made up here can be told from the first report on."""
    return methods.changed(load_sweep(SWEEP), scheduler={"min_steps": STEPS[0]})


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
    sweep = with_an_early_rung()

    def draw(params: dict[str, Any], number: int) -> Training:
        return training(params[LR] * (1 + 1e-6 * number))

    def truth(params: dict[str, Any]) -> dict[str, float]:
        return dict.fromkeys(OBJECTIVES, params[LR])

    method = methods.make_method(name, sweep, 0, tmp_path, 4, truth)
    trainings = 24 if name == methods.PRUNED else 8  # it stops none before five have ended
    replayed = replay.replay(method, draw, 4, 1620 * trainings, 1000)
    complete = [each.params[LR] for each in replayed.ended]
    if name == methods.RANDOM or name.endswith("no stopping"):
        assert replayed.trials <= len(complete) + 4
    else:
        assert replayed.trials > (1 if name == methods.PRUNED else 2) * len(complete) + 4
        if name != methods.BELIEVING:  # believes in a higher rate than is best here
            assert np.median(complete) < np.sqrt(3e-4 * 1e-2), "the middle of the range"


def test_the_encoding_tells_every_configuration_apart() -> None:
    sweep = load_sweep(SWEEP)
    encode = Encoding(sweep.space.parameters())
    rng = np.random.default_rng(0)
    vectors = np.array([encode(methods.random_point(sweep.space, rng)) for _ in range(32)])
    assert len(np.unique(vectors, axis=0)) == 32
    assert vectors.min() >= 0
    assert vectors.max() <= 1


def test_wrong_priors_are_the_farther_ends_and_other_choices() -> None:
    known = load_sweep(SWEEP).space.parameters()
    wrong = {key: methods.opposite(known[key], prior).value for key, prior in methods.PRIORS.items()}
    assert wrong[LR] == pytest.approx(3e-4), "2e-3 lies in the upper half of 3e-4 to 1e-2, on a log scale"
    assert wrong["loss.feature.recon"] == pytest.approx(3)
    assert all(wrong[key] != prior.value for key, prior in methods.PRIORS.items())


def test_all_priors_of_a_benchmark_arrive_in_its_space() -> None:
    assert methods.with_priors(load_sweep(SWEEP), methods.PRIORS).space.priors() == methods.PRIORS


def test_what_a_random_search_draws_is_no_trials_noise() -> None:
    """numpy gives the seeds 5 and [5, 0] the same numbers."""
    sweep = load_sweep(SWEEP)
    ours = methods.Random(sweep, 5).suggest("run-0")[1]
    assert ours != methods.random_point(sweep.space, np.random.default_rng([5, 0]))


def test_trees_predict_what_their_forest_predicts() -> None:
    surrogate = made_up()
    params = [methods.random_point(surrogate.sweep.space, np.random.default_rng(1)) for _ in range(3)]
    x = np.array([surrogate.encode(each) for each in params])
    assert isinstance(surrogate.model, Trees)
    forest = surrogate.model.model.predict(x).reshape(3, len(STEPS), len(OBJECTIVES))
    np.testing.assert_array_equal(surrogate.model.predict(x), forest)


def test_the_pool_is_large_beside_what_random_search_draws_from_it() -> None:
    """The best of 1,000 draws from 4,000 configurations is nearly always one of eight: every draw has their luck."""
    assert 20 * max(replay.SETUPS.values()) <= yardstick_module.POOL


def test_splitting_once_changes_no_suggestion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = with_an_early_rung()
    splits: list[int] = []
    split = tpe._split_trials

    def counted(study: Any, trials: list[Any], n_below: int) -> Any:
        splits.append(n_below)
        return split(study, trials, n_below)

    monkeypatch.setattr(tpe, "_split_trials", counted)

    def suggested(name: str, directory: Path) -> list[dict[str, Any]]:
        directory.mkdir()
        splits.clear()
        method = methods.make_method(name, sweep, 0, directory, 4, lambda _: {})
        replayed = replay.replay(method, lambda params, _: training(params[LR]), 4, 1620 * 5, 40)
        return [each.params for each in replayed.ended]

    names = (methods.OURS, *methods.STOCK)
    before = [(suggested(name, tmp_path / f"{number}"), len(splits)) for number, name in enumerate(names)]
    methods.split_once()
    for number, (name, (params, count)) in enumerate(zip(names, before, strict=True)):
        assert suggested(name, tmp_path / f"again-{number}") == params
        assert len(splits) < count / 3


def test_the_way_to_the_ceiling_is_by_means() -> None:
    random_g = np.array([0.4, 0.4, 1.0])
    assert quality.way_interval([0.5], [0.4], random_g)[0] == pytest.approx(0.5)
    assert quality.way_interval([0.4], [0.4], random_g) == (1, 1, 1)


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
