"""How good a search is per training step: recorded trainings replayed on a virtual clock, without Ray's workers.

What is judged is what a person gets: the configuration that the product would recommend, and the front that it would
show, each by what they are worth without the noise of a seed. Random search at full fidelity is the yardstick.
"""

from __future__ import annotations

import heapq
import math
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go
from methods import CEILING, METHODS, OURS, STOCK, Method, make_method, split_once
from page import COLORS, Section
from recording import OBJECTIVES
from surrogate import TRUTHS, Surrogate, Table, Training, cross_validate
from yardstick import POOL, Yardstick

from search.config.sweep import Sweep
from vaegan_core.evaluation import Outcome

SETUPS = {4: 64, 16: 256, 64: 1000}
"""Trainings at a time, and how many full trainings' steps are spent."""
SEEDS = 100
FIRST_SEED = 1000
"""What was chosen by trying was tried with seeds below it."""
POINTS = 120
"""Points of the quality curves, evenly over the steps."""
FEWEST, FEWEST_REPEATED = 120, 30
"""Recorded configurations, and trainings that repeat one, without which a replay says nothing."""


# --- The clock --------------------------------------------------------------------------------------------------------


@dataclass
class Ended:
    """A training that a method let go to its end."""

    spent: int
    """Training steps of all trials until then."""
    params: dict[str, Any]
    metrics: dict[str, float]


@dataclass
class Replayed:
    ended: list[Ended]
    spent: int
    trials: int


def replay(
    method: Method, draw: Callable[[dict[str, Any], int], Training], slots: int, budget: float, trials: float = math.inf
) -> Replayed:
    """Runs until the budget of steps is spent or `trials` have ended; every step takes as long as any other.

    `draw` gives the training of a trial by its parameters and its number.
    """
    waiting: list[tuple[int, int]] = []  # when a run reports next, and its number
    names: dict[int, str] = {}
    params: dict[str, dict[str, Any]] = {}
    left: dict[str, list[tuple[int, dict[str, float], Outcome]]] = {}
    at: dict[str, int] = {}
    ended: list[Ended] = []
    spent = stopped = 0

    def start(now: int) -> None:
        run = len(names)
        name, values = method.suggest(f"run-{run}")
        if name not in left:
            params[name], left[name], at[name] = values, reports(draw(values, len(left))), 0
        names[run] = name
        heapq.heappush(waiting, (now + left[name][0][0] - at[name], run))

    for _ in range(slots):
        start(0)
    while spent < budget and stopped < trials:
        now, run = heapq.heappop(waiting)
        name = names[run]
        step, metrics, outcome = left[name].pop(0)
        spent, at[name] = spent + step - at[name], step
        if method.report(f"run-{run}", step, metrics, outcome):
            heapq.heappush(waiting, (now + left[name][0][0] - step, run))
            continue
        stopped += 1
        if outcome == "completed":
            ended.append(Ended(spent, params[name], metrics))
        start(now)
    return Replayed(ended, spent, len(left))


def reports(training: Training) -> list[tuple[int, dict[str, float], Outcome]]:
    """Step, metrics and outcome of every evaluation of a training."""
    found: list[tuple[int, dict[str, float], Outcome]] = [
        (step, dict(zip(OBJECTIVES, values, strict=True)), "running") for step, values in training.reports
    ]
    if training.diverged is not None:
        return [*found, (training.diverged, {}, "diverged")]
    step, metrics, _ = found.pop()
    return [*found, (step, metrics, "completed")]


# --- Quality ----------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """One replay: what a person would have had at each of POINTS shares of the budget."""

    g: np.ndarray
    """sqrt(s1 s2) of the recommended trial; infinite before any has completed."""
    volume: np.ndarray
    trials: int
    completed: int

    def share_to(self, target: float) -> float:
        """Share of the budget until the recommended trial is as good as `target`, for good; infinite if never."""
        good = np.logical_and.accumulate((self.g <= target)[::-1])[::-1]
        return float((good.argmax() + 1) / len(good)) if good.any() else math.inf


def judge(replayed: Replayed, yardstick: Yardstick, budget: float) -> Run:
    true = [yardstick.surrogate.true_metrics(each.params) for each in replayed.ended]
    observed = [each.metrics for each in replayed.ended]
    spent = np.array([each.spent for each in replayed.ended])
    found: list[tuple[int, float, float]] = []
    for point in range(1, POINTS + 1):
        count = int((spent <= budget * point / POINTS).sum())
        same = found and count == found[-1][0]
        found.append(found[-1] if same else (count, *yardstick.quality(observed[:count], true[:count])))
    return Run(
        np.array([g for _, g, _ in found]), np.array([v for *_, v in found]), replayed.trials, len(replayed.ended)
    )


_yardstick: Yardstick


def _remember(yardstick: Yardstick) -> None:
    global _yardstick
    _yardstick = yardstick
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    split_once()


def run(name: str, sweep: Sweep, seed: int, slots: int, trainings: int) -> Run:
    """One replay in a process that `_remember`s the yardstick."""
    surrogate = _yardstick.surrogate

    def draw(params: dict[str, Any], number: int) -> Training:
        return surrogate.training(params, np.random.default_rng([seed, number]))

    budget = trainings * sweep.steps
    with tempfile.TemporaryDirectory() as directory:
        method = make_method(name, sweep, seed, Path(directory), slots, surrogate.true_metrics)
        return judge(replay(method, draw, slots, budget), _yardstick, budget)


# --- The tables -------------------------------------------------------------------------------------------------------


def interval(values: Sequence[float], statistic: Callable[..., Any] = np.mean) -> tuple[float, float, float]:
    """A statistic of values of independent seeds, with the 95 % interval of 2,000 bootstrap samples."""
    data = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(0).integers(len(data), size=(2000, len(data)))
    with np.errstate(invalid="ignore"):
        samples = np.sort(statistic(data[drawn], axis=1))
    return float(statistic(data)), float(samples[49]), float(samples[1949])


def share_interval(runs: Sequence[Run], random_g: np.ndarray) -> tuple[float, float, float]:
    """Median share of the budget until a method is as good as random search at its end, and its 95 % interval; both the
    runs and the target's draws are resampled."""
    rng = np.random.default_rng(0)

    def median(chosen: Sequence[Run], target: float) -> float:
        return float(np.median([each.share_to(target) for each in chosen]))

    samples = sorted(
        median(
            [runs[index] for index in rng.integers(len(runs), size=len(runs))],
            float(np.median(rng.choice(random_g, len(random_g)))),
        )
        for _ in range(500)
    )
    return median(runs, float(np.median(random_g))), samples[12], samples[487]


def way_interval(mine: Sequence[float], ceiling: Sequence[float], random_g: np.ndarray) -> tuple[float, float, float]:
    """Share of the way from random search's g to the ceiling's, by their means, and its 95 % interval; the seeds, which
    are the same for both methods, and the target's draws are resampled."""
    rng, ends, tops = np.random.default_rng(0), np.asarray(mine), np.asarray(ceiling)
    seeds = rng.integers(len(ends), size=(500, len(ends)))
    starts = random_g[rng.integers(len(random_g), size=(500, len(random_g)))].mean(1)
    with np.errstate(invalid="ignore"):
        samples = np.sort((starts - ends[seeds].mean(1)) / (starts - tops[seeds].mean(1)))
        share = (random_g.mean() - ends.mean()) / (random_g.mean() - tops.mean())
    return float(share), float(samples[12]), float(samples[487])


def _shown(found: tuple[float, float, float], form: str) -> str:
    value, low, high = (format(each, form) if math.isfinite(each) else "never" for each in found)
    return f"{value} ({low} to {high})"


def measure(
    setups: dict[int, int],
    seeds: int,
    processes: int,
    say: Callable[[str], None],
    methods: Sequence[str] = METHODS,
    truths: Sequence[str] = tuple(TRUTHS),
) -> list[Section]:
    table = Table.load()
    configurations = len(np.unique(table.configurations))
    repeated = len(table.x) - configurations
    if configurations < FEWEST or repeated < FEWEST_REPEATED:
        return [
            Section(
                "Quality per training step, replayed: too little is recorded yet",
                ["", "recorded", "needed"],
                [
                    ["configurations", f"{configurations}", f"{FEWEST}"],
                    ["trainings that repeat one with another seed", f"{repeated}", f"{FEWEST_REPEATED}"],
                ],
                ["curves.yaml says how to record more."],
            )
        ]
    sections = []
    for truth in truths:
        say(f"replay: fitting {truth}")
        yardstick = Yardstick.of(Surrogate(table, truth))
        for slots, trainings in setups.items():
            runs = run_all(yardstick, methods, slots, trainings, seeds, processes, say)
            sections.append(
                quality(runs, yardstick, f"{truth}: {slots} at a time, {trainings} trainings' steps", trainings)
            )
    return [*sections, surrogate_error(table)]


def run_all(
    yardstick: Yardstick,
    methods: Sequence[str],
    slots: int,
    trainings: int,
    seeds: int,
    processes: int,
    say: Callable[[str], None],
) -> dict[str, list[Run]]:
    """Replays of every method, seed by seed."""
    sweep = yardstick.surrogate.sweep
    context = get_context("spawn")
    runs, chosen = {}, range(FIRST_SEED, FIRST_SEED + seeds)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_remember, initargs=(yardstick,)) as pool:
        for name in methods:
            waiting = [pool.submit(run, name, sweep, seed, slots, trainings) for seed in chosen]
            runs[name] = [each.result() for each in waiting]
            trials = np.mean([each.trials for each in runs[name]])
            say(f"replay: {slots} at a time, {name}: {trials:.0f} trials a seed")
    return runs


def quality(runs: dict[str, list[Run]], yardstick: Yardstick, title: str, trainings: int) -> Section:
    """Every method beside random search."""
    target = yardstick.random_quality(trainings)
    ceiling = [each.g[-1] for each in runs.get(CEILING, [])]
    rows = []
    for name, mine in runs.items():
        ends = [each.g[-1] for each in mine]
        way = _shown(way_interval(ends, ceiling, target[:, 0]), ".0%") if ceiling else ""
        rows.append(
            [
                name,
                f"{np.mean([each.trials for each in mine]):.0f}, {np.mean([each.completed for each in mine]):.0f}",
                _shown(share_interval(mine, target[:, 0]), ".2f"),
                _shown(interval([each.g[POINTS // 3 - 1] for each in mine], np.median), ".3f"),
                _shown(interval(ends), ".3f"),
                way,
                _shown(interval([each.volume[-1] for each in mine]), ".3f"),
            ]
        )
    return Section(
        f"Quality per training step, replayed, {title}: {len(next(iter(runs.values())))} seeds",
        [
            "",
            "trials, completed",
            "share of the steps to random search's quality",
            "g at a third (median)",
            "g at the end",
            "of the way to perfect stopping",
            "log hypervolume at the end",
        ],
        rows,
        [
            f"g: sqrt(s1 s2) of the recommended trial without noise; less is better. Random search with {trainings} "
            f"full trainings: {np.median(target[:, 0]):.3f} (median of {len(target):,} draws; mean "
            f"{target[:, 0].mean():.3f}, log hypervolume {target[:, 1].mean():.3f}); the best of {POOL:,} "
            f"configurations: {yardstick.best_g:.3f}. In brackets 95 % intervals over seeds (bootstrap).",
            *comparisons(runs),
        ],
        [_figure(runs)],
    )


def comparisons(runs: dict[str, list[Run]]) -> list[str]:
    """Ours less each of Ray's pairs, seed by seed."""
    lines = []
    for label in (each for each in STOCK if each in runs and OURS in runs):
        pairs = list(zip(runs[OURS], runs[label], strict=True))
        g = interval([ours.g[-1] - stock.g[-1] for ours, stock in pairs])
        volume = interval([ours.volume[-1] - stock.volume[-1] for ours, stock in pairs])
        lines.append(f"At the end, ours less {label}: g {_shown(g, '+.3f')}, log hypervolume {_shown(volume, '+.3f')}.")
    return lines


def _figure(runs: dict[str, list[Run]]) -> go.Figure:
    shares = np.arange(1, POINTS + 1) / POINTS
    figure = go.Figure(layout={"template": "plotly_white", "title": "Log hypervolume: mean", "height": 420})
    for color, (label, mine) in zip(COLORS, runs.items(), strict=False):
        figure.add_scatter(x=shares, y=np.mean([each.volume for each in mine], 0), name=label, line={"color": color})
    figure.update_xaxes(title="share of the training steps")
    return figure


def surrogate_error(table: Table) -> Section:
    return Section(
        "The replay's truths, on the better half of configurations that they were not fitted to",
        ["at full fidelity", "R2 (log)", "rank correlation", "error", "of which noise between seeds"],
        [
            [
                f"{truth}, {name}",
                f"{fit.r2:.2f}",
                f"{fit.rank:.2f}",
                f"{math.expm1(fit.error):.0%}",
                f"{math.expm1(fit.noise):.0%}",
            ]
            for truth in TRUTHS
            for name, fit in cross_validate(table, truth).items()
        ],
        [
            f"{len(table.x)} trainings of {len(np.unique(table.configurations))} configurations, "
            f"{(~table.completed).sum()} diverged.",
            "Rank correlation of the recorded objectives with themselves at full fidelity: "
            + "; ".join(
                f"at step {steps} {' and '.join(f'{each:.2f}' for each in table.foresight(steps))}"
                for steps in table.sweep.rungs
            )
            + ".",
        ],
    )
