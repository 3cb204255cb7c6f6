"""How good a search is per training step: recorded curves replayed on a virtual clock, without Ray's actors.

Ours is the pair that a sweep runs (search.running.tuner.make_search, with a journal on disk), called as Tune calls it;
beside it Ray's own OptunaSearch with ASHAScheduler on one of the objectives, and random search at full fidelity.

One room because the clock, the methods and how they are judged are one experiment, read from top to bottom.
"""

from __future__ import annotations

import heapq
import math
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution
from page import COLORS, Section
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch as StockSearch
from record_curves import OBJECTIVES, UnitPoint
from surrogate import Surrogate, Table, Training, cross_validate, evaluation_steps

from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.running.messages import Evaluated, Started, to_result
from search.running.tuner import make_search
from search.standings.pareto import hypervolume
from vaegan_core.evaluation import PIXEL_MSE, SAMPLES_FD, Evaluation, Outcome

SLOTS = 4
SEEDS = 100
RANDOM_TRIALS = 64
UNLIMITED = 1_000_000
POINTS = 60
"""Points of the quality curve, evenly over the steps of random search."""
CONTINUE = str(TrialScheduler.CONTINUE)
OURS, RANDOM = "ours", "random"
STOCK = {f"stock, ASHA on {name}": name for name in OBJECTIVES}
METHODS = (OURS, *STOCK, RANDOM)


class Method(Protocol):
    """A searcher and a scheduler, as Tune would call them."""

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Parameters of the next trial."""

    def report(self, trial_id: str, step: int, metrics: dict[str, float], outcome: Outcome) -> bool:
        """One evaluation; whether the trial goes on."""


# --- The methods ------------------------------------------------------------------------------------------------------


class Ours:
    def __init__(self, sweep: Sweep, directory: Path, slots: int = SLOTS) -> None:
        self.journal = Journal.create(directory / "journal.db", id="replay")
        self.search, self.scheduler = make_search(sweep, self.journal, directory, slots, lambda: False)
        self.assigned: dict[str, SimpleNamespace] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        assignment = self.search.suggest(trial_id)
        assert isinstance(assignment, dict), assignment
        trial = self.assigned[trial_id] = SimpleNamespace(trial_id=trial_id, config=assignment)
        self.scheduler.on_trial_add(None, trial)
        started = to_result(Started(assignment["config"], {}, from_step=0))
        self.scheduler.on_trial_result(None, trial, started)
        return self.journal.trial(assignment["trial"]).params

    def report(self, trial_id: str, step: int, metrics: dict[str, float], outcome: Outcome) -> bool:
        return self.receive(trial_id, Evaluation(step, outcome, metrics))

    def receive(self, trial_id: str, evaluation: Evaluation) -> bool:
        result = to_result(Evaluated(evaluation))
        if self.scheduler.on_trial_result(None, self.assigned[trial_id], result) == CONTINUE:
            return True
        self.scheduler.on_trial_complete(None, self.assigned.pop(trial_id), result)
        self.search.on_trial_complete(trial_id, result=result)
        return False


class Stock:
    """A trial that diverges raises, as the trainable of a careful user would; both are told as Tune tells them."""

    def __init__(self, sweep: Sweep, metric: str, seed: int) -> None:
        scheduler: Any = sweep.config.scheduler
        self.search = StockSearch(
            lambda trial: sweep.space.suggest(trial) and None,
            metric=list(OBJECTIVES),
            mode=["min"] * len(OBJECTIVES),
            seed=seed,
        )
        self.scheduler = ASHAScheduler(
            time_attr="step",
            metric=metric,
            mode="min",
            max_t=sweep.steps,
            grace_period=scheduler.min_steps,
            reduction_factor=scheduler.reduction_factor,
        )
        self.trials: dict[str, SimpleNamespace] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        params = self.search.suggest(trial_id)
        assert params is not None
        self.trials[trial_id] = SimpleNamespace(trial_id=trial_id, config=params)
        self.scheduler.on_trial_add(None, self.trials[trial_id])
        return params

    def report(self, trial_id: str, step: int, metrics: dict[str, float], outcome: Outcome) -> bool:
        trial = self.trials[trial_id]
        result = {"step": step, "training_iteration": step} | metrics
        if outcome == "diverged":
            self.scheduler.on_trial_error(None, trial)
            self.search.on_trial_complete(trial_id, error=True)
            return False
        if self.scheduler.on_trial_result(None, trial, result) == CONTINUE:
            self.search.on_trial_result(trial_id, result)
            return True
        self.scheduler.on_trial_complete(None, trial, result)
        self.search.on_trial_complete(trial_id, result=result)
        return False


class Random:
    def __init__(self, parameters: dict[str, BaseDistribution], sweep: Sweep, seed: int) -> None:
        self.names, self.sweep, self.rng = list(parameters), sweep, np.random.default_rng(seed)

    def suggest(self, trial_id: str) -> dict[str, Any]:  # noqa: ARG002
        return self.sweep.space.suggest(UnitPoint({name: self.rng.random() for name in self.names}))

    def report(self, trial_id: str, step: int, metrics: dict[str, float], outcome: Outcome) -> bool:  # noqa: ARG002
        return outcome == "running"


def changed(sweep: Sweep, **parts: dict[str, Any]) -> Sweep:
    """The same sweep with other settings, by part of its configuration."""
    config = sweep.config
    update = {part: getattr(config, part).model_copy(update=settings) for part, settings in parts.items()}
    return replace(sweep, config=config.model_copy(update=update))


def make_method(name: str, sweep: Sweep, seed: int, directory: Path) -> Method:
    sweep = changed(sweep, sampler={"seed": seed}, budget={"trials": UNLIMITED})
    if name in STOCK:
        return Stock(sweep, STOCK[name], seed)
    return Random(sweep.space.parameters(), sweep, seed) if name == RANDOM else Ours(sweep, directory)


# --- The clock --------------------------------------------------------------------------------------------------------


@dataclass
class Ended:
    spent: int
    """Training steps of all trials until then."""
    params: dict[str, Any]
    complete: bool


def replay(
    method: Method, draw: Callable[[dict[str, Any], int], Training], budget: float, trials: float
) -> list[Ended]:
    """Runs until the budget of steps is spent or `trials` have ended; every step takes as long as any other.

    `draw` gives the training of a trial by its parameters and its number.
    """
    waiting: list[tuple[int, int]] = []  # when a trial reports next, and its number
    params: dict[int, dict[str, Any]] = {}
    left: dict[int, list[tuple[int, dict[str, float], Outcome]]] = {}
    at: dict[int, int] = {}
    ended: list[Ended] = []
    spent = 0

    def start(now: int) -> None:
        number = len(params)
        params[number] = method.suggest(f"trial-{number}")
        left[number], at[number] = reports(draw(params[number], number)), 0
        heapq.heappush(waiting, (now + left[number][0][0], number))

    for _ in range(SLOTS):
        start(0)
    while spent < budget and len(ended) < trials:
        now, number = heapq.heappop(waiting)
        step, metrics, outcome = left[number].pop(0)
        spent, at[number] = spent + step - at[number], step
        if method.report(f"trial-{number}", step, metrics, outcome):
            heapq.heappush(waiting, (now + left[number][0][0] - step, number))
        else:
            ended.append(Ended(spent, params[number], outcome == "completed"))
            start(now)
    return ended


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
    """One replay: noise-free quality of its full-fidelity trials as it grew."""

    spent: np.ndarray
    """Steps spent when each of them ended, after a 0."""
    hypervolume: np.ndarray
    pixel_mse: np.ndarray
    samples_fd: np.ndarray
    steps: int
    """Spent in all."""
    trials: int

    def at(self, measure: str, steps: np.ndarray) -> np.ndarray:
        """The measure at this number of steps."""
        return getattr(self, measure)[np.searchsorted(self.spent, steps, side="right") - 1]

    def steps_to(self, measure: str, target: float) -> float:
        """Steps spent when the measure was as good as `target`; infinite when it never was."""
        values = getattr(self, measure)
        good = values >= target if measure == "hypervolume" else values <= target
        return float(self.spent[good.argmax()]) if good.any() else math.inf


MEASURES = {"hypervolume": "hypervolume", "pixel_mse": PIXEL_MSE, "samples_fd": SAMPLES_FD}


def judge(ended: Sequence[Ended], surrogate: Surrogate) -> Run:
    complete = [each for each in ended if each.complete]
    metrics = [surrogate.true_metrics(each.params) for each in complete]
    scores = [surrogate.scales.scores(each) for each in metrics]
    volumes = [hypervolume(scores[: count + 1]) for count in range(len(scores))]
    best = {name: np.minimum.accumulate([math.inf, *(each[name] for each in metrics)]) for name in OBJECTIVES}
    return Run(
        np.array([0, *(each.spent for each in complete)]),
        np.array([0.0, *volumes]),
        best[PIXEL_MSE],
        best[SAMPLES_FD],
        ended[-1].spent,
        len(ended),
    )


_surrogate: Surrogate


def _remember(surrogate: Surrogate) -> None:
    global _surrogate
    _surrogate = surrogate
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def run(name: str, sweep: Sweep, seed: int, budget: float, trials: float = math.inf) -> Run:
    """One replay in a process that `_remember`s the surrogate."""

    def draw(params: dict[str, Any], number: int) -> Training:
        return _surrogate.training(params, np.random.default_rng([seed, number]))

    with tempfile.TemporaryDirectory() as directory:
        ended = replay(make_method(name, sweep, seed, Path(directory)), draw, budget, trials)
    return judge(ended, _surrogate)


def run_all(
    surrogate: Surrogate, sweeps: dict[str, tuple[str, Sweep]], seeds: int, random_trials: int, processes: int, say: Any
) -> dict[str, list[Run]]:
    """Replays by label of every (method, sweep), each up to the steps that random search spends on its trials."""
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_remember, initargs=(surrogate,)) as pool:
        waiting = [pool.submit(run, RANDOM, surrogate.sweep, seed, math.inf, random_trials) for seed in range(seeds)]
        runs = {RANDOM: [each.result() for each in waiting]}
        budget = max(each.steps for each in runs[RANDOM])
        for label, (name, sweep) in sweeps.items():
            waiting = [pool.submit(run, name, sweep, seed, budget) for seed in range(seeds)]
            runs[label] = [each.result() for each in waiting]
            say(f"replay: {label}, {np.mean([each.trials for each in runs[label]]):.0f} trials a seed")
    return runs


# --- The tables -------------------------------------------------------------------------------------------------------


def interval(values: Sequence[float], statistic: Callable[..., Any] = np.mean) -> tuple[float, float, float]:
    """A statistic of values of independent seeds, with the 95 % interval of 2,000 bootstrap samples."""
    data = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(0).integers(len(data), size=(2000, len(data)))
    with np.errstate(invalid="ignore"):
        samples = np.sort(statistic(data[drawn], axis=1))
    return float(statistic(data)), float(samples[49]), float(samples[1949])


def _shown(found: tuple[float, float, float], form: str) -> str:
    value, low, high = (format(each, form) if math.isfinite(each) else "never" for each in found)
    return f"{value} ({low} to {high})"


def measure(seeds: int, random_trials: int, processes: int, say: Callable[[str], None]) -> list[Section]:
    table = Table.load()
    say("replay: fitting the surrogate")
    surrogate = Surrogate(table)
    sweeps = {name: (name, table.sweep) for name in METHODS if name != RANDOM}
    runs = run_all(surrogate, sweeps, seeds, random_trials, processes, say)
    say("replay: cross-validating the surrogate")
    return [quality(runs, random_trials), surrogate_error(table)]


def quality(runs: dict[str, list[Run]], random_trials: int) -> Section:
    """Every method beside random search; `runs` by label, seed by seed."""
    budget = np.median([each.steps for each in runs[RANDOM]])
    targets = {key: float(np.median([each.at(key, budget) for each in runs[RANDOM]])) for key in MEASURES}
    rows = []
    for label, mine in sorted(runs.items(), key=lambda item: [*METHODS, *runs].index(item[0])):
        shares = {key: [each.steps_to(key, targets[key]) / budget for each in mine] for key in MEASURES}
        final = {key: [each.at(key, budget) for each in mine] for key in MEASURES}
        rows.append(
            [
                label,
                f"{np.mean([each.trials for each in mine]):.0f}",
                *(_shown(interval(shares[key], np.median), ".2f") for key in MEASURES),
                _shown(interval(final["hypervolume"]), ".3f"),
                _shown(interval(final["pixel_mse"]), ".4f"),
                _shown(interval(final["samples_fd"]), ".0f"),
            ]
        )
    return Section(
        f"Quality per training step, replayed: {len(runs[RANDOM])} seeds, {SLOTS} trials at a time",
        [
            "",
            "trials",
            *(f"steps to random-{random_trials}'s {name}" for name in MEASURES.values()),
            *(f"{name} at the end" for name in MEASURES.values()),
        ],
        rows,
        [
            f"Everything ends after {budget:,.0f} steps, what random search spends on {random_trials} full trials "
            "(median). Steps: median share of them until the method is as good as random search is at its end "
            "(median); quality is that of full-fidelity trials, without noise. In brackets 95 % intervals over seeds "
            "(bootstrap).",
            *comparisons(runs, budget),
        ],
        [_figure(runs, float(budget))],
    )


def comparisons(runs: dict[str, list[Run]], budget: float) -> list[str]:
    """Ours less each stock pair, seed by seed, at thirds of the steps."""
    lines = []
    for label in (each for each in STOCK if each in runs and OURS in runs):
        differences = []
        for third in (1, 2, 3):
            pairs = zip(runs[OURS], runs[label], strict=True)
            steps = budget * third / 3
            found = interval([ours.at("hypervolume", steps) - stock.at("hypervolume", steps) for ours, stock in pairs])
            differences.append(f"{_shown(found, '+.3f')} at {third}/3")
        lines.append(f"Hypervolume, ours less {label}, of the steps: {'; '.join(differences)}.")
    return lines


def _figure(runs: dict[str, list[Run]], budget: float) -> go.Figure:
    steps = np.linspace(0, budget, POINTS)
    figure = go.Figure(layout={"template": "plotly_white", "title": "Hypervolume: mean, 95 % interval", "height": 420})
    for color, (label, mine) in zip(COLORS, runs.items(), strict=False):
        bands = np.array([interval(column) for column in np.array([each.at("hypervolume", steps) for each in mine]).T])
        figure.add_scatter(x=steps, y=bands[:, 0], name=label, legendgroup=label, line={"color": color})
        figure.add_scatter(
            x=[*steps, *steps[::-1]],
            y=[*bands[:, 1], *bands[::-1, 2]],
            fill="toself",
            fillcolor=color,
            opacity=0.15,
            line={"width": 0},
            legendgroup=label,
            showlegend=False,
            hoverinfo="skip",
        )
    figure.update_xaxes(title="training steps, all trials together")
    return figure


def surrogate_error(table: Table) -> Section:
    fits, divergence = cross_validate(table)
    evaluated = evaluation_steps(table.sweep)
    return Section(
        "The replay's surrogate, on configurations it was not fitted to",
        ["at full fidelity", "R2 (log)", "rank correlation", "error", "of which noise between seeds"],
        [
            [name, f"{fit.r2:.2f}", f"{fit.rank:.2f}", f"{math.expm1(fit.error):.0%}", f"{math.expm1(fit.noise):.0%}"]
            for name, fit in fits.items()
        ],
        [
            f"{len(table.x)} trainings of {len(np.unique(table.configurations))} configurations, "
            f"{(~table.completed).sum()} diverged. Divergence: {divergence['accuracy']:.0%} right "
            f"(always no: {divergence['majority']:.0%}), area under the curve {divergence['auc']:.2f}.",
            "Rank correlation of the recorded objectives with themselves at full fidelity: "
            + "; ".join(
                f"after {steps} steps {' and '.join(f'{each:.2f}' for each in table.foresight(steps))}"
                for steps in (evaluated[0], evaluated[len(evaluated) // 3 - 1])
            )
            + ".",
        ],
    )
