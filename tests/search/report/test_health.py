"""Each health check on a sweep where it must warn, on one where it must not, and how often it warns of nothing."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from planted import KL, LR, SIGMA, WIDTH, Planted, drawn, flat_curve, planted
from sweeps import SPACE, make_sweep, sweep_data

from search.config.load import load_sweep, parse_sweep
from search.config.sweep import Sweep
from search.report import health
from search.report.health import Check, Facts
from search.report.importance import Importance
from search.report.searched import Searched
from search.report.statistics import at_bound, region_of, slower

MOST_FALSE = 0.05


def uniform(seed: int, count: int = 40) -> list[Planted]:
    """Trials whose parameters have no effect."""
    random = np.random.default_rng(seed)
    return [Planted(drawn(random), flat_curve(random)) for _ in range(count)]


def test_best_trials_at_a_bound_are_seen_and_the_command_widens_it() -> None:
    random = np.random.default_rng(0)
    trials = []
    for _ in range(60):
        params = drawn(random)
        trials.append(Planted(params, flat_curve(random, offset=0.1 * -math.log10(params[LR]))))
    check = health.bounds(planted(trials))
    assert check.passed is False
    assert check.sentence.startswith(
        "6 of the best 6 in the outer tenth of optimizer.autoencoder.lr, at its upper bound"
    )
    assert "--set space.optimizer.autoencoder.lr.high=0.1" in check.command
    assert health.bounds(planted(uniform(0))).passed is True
    assert health.bounds(planted(uniform(0, 5))).passed is None
    assert "there are 0" in health.bounds(planted([])).sentence, "no trial yet, which is not the space's fault"


def test_a_bound_inside_a_branch_is_widened_where_the_yaml_has_it() -> None:
    random = np.random.default_rng(1)
    trials = []
    for _ in range(240):
        params = drawn(random)
        bad = math.log(params[SIGMA] / 0.05) if SIGMA in params else 3.0
        trials.append(Planted(params, flat_curve(random, offset=0.1 * bad)))
    check = health.bounds(planted(trials))
    assert check.passed is False
    assert "--set space.loss.kl.one_of.fixed.sigma.low=0.014" in check.command


BETA2, PIXELS, DIM = "optimizer.autoencoder.beta2", "loss.pixel.weight", "model.latent_dim"


@pytest.mark.parametrize(
    ("name", "node", "upper", "said", "command"),
    [
        (BETA2, {"low": 0.99, "high": 0.999}, False, "lower bound 0.99: ", f"space.{BETA2}.low=0.9855 "),
        (BETA2, {"low": 0.9, "high": 0.99}, False, "lower bound 0.9: ", f"space.{BETA2}.low=0.855 "),
        (PIXELS, {"low": 1000.0, "high": 1004.0}, True, "upper bound 1004: ", f"space.{PIXELS}.high=1006 "),
        (PIXELS, {"low": 0.0, "high": 10.0}, False, "ranges that could be wider.", ""),
        (DIM, {"low": 1, "high": 64, "log": True}, False, "ranges that could be wider.", ""),
        (DIM, {"low": 4, "high": 64, "log": True}, False, "lower bound 4: ", f"space.{DIM}.low=1 "),
    ],
)
def test_a_range_is_widened_by_as_many_digits_as_it_takes(
    name: str, node: dict[str, Any], upper: bool, said: str, command: str
) -> None:
    """With two digits, 0.99 was to be widened to 0.99; and 0 cannot be widened to 0."""
    random = np.random.default_rng(3)
    places = random.random(80)
    low, high, log = node["low"], node["high"], node.get("log", False)
    values = [low * (high / low) ** place if log else low + place * (high - low) for place in places]
    trials = [
        Planted(
            drawn(random) | {name: round(value) if isinstance(low, int) else value},
            flat_curve(random, offset=0.2 * (1 - place if upper else place)),
        )
        for place, value in zip(places, values, strict=True)
    ]
    check = health.bounds(planted(trials, make_sweep(space=SPACE | {name: node}, budget={"trials": 80})))
    assert said in check.sentence
    assert command in check.command
    assert check.passed is not bool(command)


@pytest.mark.parametrize(
    ("low", "high", "value", "text"),
    [
        (0.99, 0.999, 0.99631, "0.9963"),
        (1e-4, 1e-2, 0.000316228, "0.00032"),
        (10, 150, 103.37, "103"),
        (0.0, 1.0, 0.0, "0"),
        (-1.0, 1.0, -0.0, "0"),
        (-1.0, 1.0, -0.256, "-0.26"),
        (0.5, 0.5, 0.5, "0.5"),
    ],
)
def test_values_of_a_narrow_range_are_told_apart(low: float, high: float, value: float, text: str) -> None:
    assert Searched("x", {0: value}, low=low, high=high).text(value) == text


def test_bounds_are_seldom_seen_where_there_are_none() -> None:
    random = np.random.default_rng(2)
    false = sum(bool(at_bound([random.random(50) for _ in range(8)], 6, [0.1] * 8)) for _ in range(100))
    assert false / 100 <= MOST_FALSE


def test_a_region_that_diverges_is_named_and_cut_off() -> None:
    random = np.random.default_rng(3)
    trials = [Planted(drawn(random), flat_curve(random)) for _ in range(60)]
    trials = [Planted(t.params, {}, "diverged") if t.params[LR] > 5e-3 else t for t in trials]
    check = health.divergence(planted(trials))
    assert check.passed is False
    assert "with optimizer.autoencoder.lr from 0.00" in check.sentence
    assert "--set space.optimizer.autoencoder.lr.high=0.00" in check.command

    trials = [Planted(t.params, {}, "diverged" if t.params[KL] == "capacity" else "completed") for t in trials]
    check = health.divergence(planted(trials))
    assert check.passed is False
    assert "loss.kl.control = capacity" in check.sentence

    trials = [Planted(t.params, {}, "diverged" if t.params[WIDTH] == 16 else "completed") for t in trials]
    assert "--set space.model.width='[8]'" in health.divergence(planted(trials)).command


@pytest.mark.parametrize("name", [LR, WIDTH])
def test_the_sweep_without_the_region_is_valid_although_a_point_and_a_prior_lie_in_it(
    name: str, tmp_path: Path
) -> None:
    data = sweep_data(points={"bad": {LR: 9e-3, WIDTH: 16}}, budget={"trials": 60})
    data["space"][LR] = data["space"][LR] | {"prior": {"value": 9e-3, "sure": "low"}}
    random = np.random.default_rng(3)
    trials = [Planted(drawn(random), flat_curve(random)) for _ in range(60)]
    least = {LR: 5e-3, WIDTH: 16}[name]
    trials = [Planted(t.params, {}, "diverged") if t.params[name] >= least else t for t in trials]
    words = shlex.split(health.divergence(planted(trials, parse_sweep(data, "toy"))).command)
    overrides = [word for option, word in pairwise(words) if option == "--set"]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(data))
    sweep = load_sweep(tmp_path / "sweep.yaml", overrides)
    known: dict[str, Any] = dict(sweep.space.parameters())
    assert {LR: known[LR].high < 9e-3, WIDTH: known[WIDTH].choices == (8,)}[name]


def test_divergence_anywhere_is_no_region() -> None:
    random = np.random.default_rng(4)
    trials = [Planted(t.params, {}, "diverged") if random.random() < 0.2 else t for t in uniform(4, 60)]
    check = health.divergence(planted(trials))
    assert check.passed is True
    assert "in no one region" in check.sentence
    assert health.divergence(planted(uniform(4))).sentence == "No trial diverged."
    for count in (4, 40):
        check = health.divergence(planted([Planted(t.params, {}, "diverged") for t in uniform(4, count)]))
        assert check.passed is False, "all of them"
        assert check.command == "vaegan rerun toy/0 --debug"
    columns = [[random.random(50) for _ in range(6)] for _ in range(100)]
    false = sum(
        region_of(each, [False] * 6, random.random(50) < 0.2, seed) is not None for seed, each in enumerate(columns)
    )
    assert false / 100 <= MOST_FALSE + 0.02


def early(foretells: float, seed: int = 5, went_on: int = 30, plan: Sweep | None = None, first: int = 120) -> Facts:
    """A sweep whose first rung has this correlation with the end."""
    random = np.random.default_rng(seed)
    trials = []
    for index in range(2 * went_on):
        end = random.standard_normal()
        start = foretells * end + math.sqrt(1 - foretells**2) * random.standard_normal()
        curve = {
            first: (0.5 + 0.01 * start, 50 + start),
            max(240, first + 1): (0.5 + 0.01 * end, 50 + end),
            480: (0.5 + 0.01 * end, 50 + end),
        }
        if index % 2:
            trials.append(Planted(drawn(random), curve))
        else:
            trials.append(Planted(drawn(random), {first: curve[first]}, "pruned"))
    return planted(trials, plan)


def test_a_rung_that_foretells_nothing_is_seen_and_one_that_does_is_not() -> None:
    check = health.early_stopping(early(-0.3))
    assert check.passed is False
    assert "Step 120 says next to nothing" in check.sentence
    assert "--set scheduler.min_steps=240" in check.command
    late = make_sweep(scheduler={"name": "asha", "min_steps": 300, "reduction_factor": 2})
    check = health.early_stopping(early(-0.3, plan=late, first=300))
    assert "--set scheduler.min_steps=390" in check.command, "later than the rung that says nothing"
    check = health.early_stopping(early(0.9))
    assert check.passed is True
    assert "saved 10,800 of 28,800 steps (38%)" in check.sentence
    false = sum(health.early_stopping(early(0.6, seed)).passed is False for seed in range(60))
    assert false / 60 <= MOST_FALSE
    assert health.early_stopping(early(0.9, went_on=3)).passed is None
    facts = early(0.9)
    asha = {"name": "asha", "min_steps": 120, "reduction_factor": 2, "audit": 1.0}
    audited = Facts(facts.sweep, facts.evaluations, make_sweep(scheduler=asha, budget={"trials": 60}))
    assert "over 30 audited trials:" in health.early_stopping(audited).sentence
    assert health.early_stopping(planted(uniform(0), make_sweep(scheduler={"name": "none"}))).passed is None


def seeds(between: float, within: float, seed: int) -> Facts:
    """A sweep with three trials on three fresh seeds each."""
    random = np.random.default_rng(seed)
    levels = [between * random.standard_normal() for _ in range(12)]

    def curve(level: float) -> dict[int, tuple[float, float]]:
        value = math.exp(level + within * random.standard_normal())
        return {480: (0.05 * value, 50 * value)}

    trials = [Planted(drawn(random), curve(level)) for level in levels]
    trials += [Planted({}, curve(levels[n]), replicate_of=n) for n in range(3) for _ in range(3)]
    return planted(trials)


def test_an_effect_beyond_noise_needs_trials_that_differ_more_than_seeds() -> None:
    assert health.effects(seeds(1.0, 0.05, 0), []).passed is True
    check = health.effects(seeds(0.0, 0.1, 0), [])
    assert check.passed is False
    assert "do not differ by more than seeds" in check.sentence
    assert "--set confirm.seeds=5" in check.command
    false = sum(health.effects(seeds(0.0, 0.1, seed), []).passed is True for seed in range(200))
    assert false / 200 <= MOST_FALSE
    missed = sum(health.effects(seeds(1.0, 0.1, seed), []).passed is False for seed in range(60))
    assert missed / 60 <= MOST_FALSE


def test_without_fresh_seeds_a_parameter_that_is_told_is_an_effect() -> None:
    told = Importance("val/pixel_mse", LR, 0.5, 0.4, 0.6, told=True)
    assert health.effects(planted(uniform(0)), [told]).passed is True
    assert health.effects(planted(uniform(0)), []).passed is None
    assert health.effects(planted(uniform(0, 60)), []).passed is False


def origins(*names: str) -> list[Planted]:
    random = np.random.default_rng(6)
    return [Planted(drawn(random), flat_curve(random), tags={"origin": name}) for name in names]


def test_a_start_up_that_never_ended_is_seen() -> None:
    plan = make_sweep(sampler={"name": "tpe", "startup_trials": 30})
    check = health.start_up(planted(origins("point a", *["quasi-random start-up of tpe"] * 11), plan))
    assert check.passed is False
    assert "tpe has not begun (sampler.startup_trials is 30)" in check.sentence
    assert check.command == "vaegan resume toy --extend 10"
    assert health.start_up(planted(origins("point a", "tpe, time 2 with these values"), plan)).passed is True
    assert health.start_up(planted(uniform(0))).passed is True
    assert health.start_up(planted([], plan)).passed is None


def test_failures_are_counted_by_cause() -> None:
    """Reasons that differ in numbers alone are one cause, as in the table below the checks."""
    random = np.random.default_rng(7)
    reasons = ["A", "nan at step 7", "nan at step 71", "B", "nan at step 9", "C"]
    failed = [Planted(drawn(random), {}, "failed", tags={"reason": reason}) for reason in reasons]
    check = health.failures(planted([*uniform(0), *failed]))
    assert check.passed is False
    assert check.sentence == "6 of 46 trials failed: 3 × nan at step 7, 1 × A and 1 × B, and 1 other cause."
    assert check.command == "vaegan resume toy --retry-failed"
    assert health.failures(planted(uniform(0))).passed is True


def test_a_handful_of_completed_trials_is_too_few() -> None:
    assert health.completed(planted(uniform(0, 3))).passed is False
    assert health.completed(planted(uniform(0, 10))).passed is True
    assert "there is no best trial" in health.completed(planted([])).sentence


def on_hosts(slow: float, seed: int = 8) -> Facts:
    random = np.random.default_rng(seed)
    trials = uniform(seed, 24)
    return planted(
        [
            Planted(
                t.params, t.curve, host=host, seconds=(slow if host == "b" else 1.0) * math.exp(random.normal(0, 0.2))
            )
            for t, host in zip(trials, "ab" * 12, strict=True)
        ]
    )


def test_a_slow_machine_is_named_and_machines_alike_are_not() -> None:
    check = health.machines(on_hosts(2.0))
    assert check.passed is False
    assert check.sentence.startswith("b is ")
    assert "times slower than a (12 and 12 trials)" in check.sentence
    assert health.machines(on_hosts(1.0)).passed is True
    false = sum(health.machines(on_hosts(1.0, seed)).passed is False for seed in range(60))
    assert false / 60 <= MOST_FALSE
    assert slower([[1.0, 1.0], [1.0]]) == 1.0


def test_kinds_of_device_moves_and_mismatches_are_told() -> None:
    random = np.random.default_rng(9)

    def with_tags(**tags: str) -> Check:
        return health.machines(planted([*uniform(9, 12), Planted(drawn(random), flat_curve(random), tags=tags)]))

    assert with_tags().sentence == "1 host, cpu."
    assert "1 moved on the way" in with_tags(moved="from step 40: device").sentence
    assert "not bit for bit" in with_tags(device="H100").sentence
    check = with_tags(mismatch="3 points; the first: x")
    assert check.passed is False
    assert check.command == "vaegan rerun run12"


@pytest.mark.parametrize("trials", [[], [Planted({LR: 1e-3}, {}, "diverged")], [Planted({LR: 1e-3}, {}, "running")]])
def test_every_check_says_something_of_a_sweep_with_nothing(trials: list[Planted]) -> None:
    for facts in (planted(trials), Facts(planted(trials).sweep, planted(trials).evaluations, None)):
        checks = health.check_health(facts, [])
        assert len(checks) == 8
        assert all(check.sentence.endswith(".") for check in checks)
        assert len({check.name for check in checks}) == 8


def test_checks_are_not_made_to_pass() -> None:
    """A warning comes with a command, or it is of no use."""
    warned: list[Callable[[], Check]] = [
        lambda: health.effects(planted(uniform(0, 60)), []),
        lambda: health.completed(planted([])),
        lambda: health.machines(on_hosts(2.0)),
    ]
    for check in (each() for each in warned):
        assert check.passed is False
        assert check.command.startswith("vaegan ")
