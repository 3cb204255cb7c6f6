"""How good a search is per training step: recorded trainings replayed on a virtual clock, without Ray's workers.

What is judged is what a person gets: the configuration that the product would recommend, and the front that it would
show, each by what they are worth without the noise of a seed. Random search at full fidelity is the yardstick.

    python tests/benchmarks/replay.py --slots 4 --seeds 100

Every replay that has ended is kept in runs/bench/replays until the table or the search changes, so that hours of them
can be had in slices.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from methods import METHODS, Method, make_method, split_once
from page import Section
from quality import POINTS, Run, quality, surrogate_error
from recording import OBJECTIVES, SWEEP, TABLE
from setups import OUTPUT
from surrogate import TRUTHS, Surrogate, Table, Training
from yardstick import Yardstick

from search import standings, strategy
from search.config.sweep import Sweep
from vaegan_core.evaluation import Outcome
from vaegan_core.tensor_files import write_atomically

SETUPS = {4: 64, 16: 256, 64: 1000}
"""Trainings at a time, and how many full trainings' steps are spent."""
SEEDS = 100
FIRST_SEED = 1000
"""What was chosen by trying was tried with seeds below it."""
KEPT = OUTPUT / "replays"
DECIDING = ("methods.py", "surrogate.py", "yardstick.py")
"""Files beside this one that decide how a replay ends, together with the search."""
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


# --- One replay -------------------------------------------------------------------------------------------------------


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
_kept: Path


def _remember(yardstick: Yardstick, kept: Path) -> None:
    global _yardstick, _kept
    _yardstick, _kept = yardstick, kept
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    split_once()


def kept_in(truth: str) -> Path:
    """The directory of replays on one truth, by all that decides how they end."""
    decides = [TABLE, SWEEP, *(Path(__file__).with_name(name) for name in DECIDING)]
    decides += [path for package in (strategy, standings) for path in sorted(Path(package.__path__[0]).glob("*.py"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in decides)).hexdigest()
    return KEPT / f"{truth.replace(' ', '-')}-{digest[:12]}"


def run(name: str, sweep: Sweep, seed: int, slots: int, trainings: int) -> Run:
    """One replay in a process that `_remember`s the yardstick; that of another time if it was kept."""
    path = _kept / f"{slots}-{trainings}" / f"{re.sub('[^a-z0-9]+', '-', name.lower())}-{seed}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = run_anew(name, sweep, seed, slots, trainings)
        data = asdict(found) | {"g": found.g.tolist(), "volume": found.volume.tolist()}
        write_atomically(path, json.dumps(data).encode())
    data = json.loads(path.read_text())
    return Run(np.array(data["g"]), np.array(data["volume"]), data["trials"], data["completed"])


def run_anew(name: str, sweep: Sweep, seed: int, slots: int, trainings: int) -> Run:
    """One replay in a process that `_remember`s the yardstick."""
    surrogate = _yardstick.surrogate

    def draw(params: dict[str, Any], number: int) -> Training:
        return surrogate.training(params, np.random.default_rng([seed, number]))

    budget = trainings * sweep.steps
    with tempfile.TemporaryDirectory() as directory:
        method = make_method(name, sweep, seed, Path(directory), slots, surrogate.true_metrics)
        return judge(replay(method, draw, slots, budget), _yardstick, budget)


# --- The tables -------------------------------------------------------------------------------------------------------


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
            runs = run_all(yardstick, kept_in(truth), methods, slots, trainings, seeds, processes, say)
            sections.append(
                quality(runs, yardstick, f"{truth}: {slots} at a time, {trainings} trainings' steps", trainings)
            )
    return [*sections, surrogate_error(table)]


def run_all(
    yardstick: Yardstick,
    kept: Path,
    methods: Sequence[str],
    slots: int,
    trainings: int,
    seeds: int,
    processes: int,
    say: Callable[[str], None],
) -> dict[str, list[Run]]:
    """Replays of every method, seed by seed; those that are `kept` are not run again."""
    sweep = yardstick.surrogate.sweep
    context = get_context("spawn")
    runs, chosen = {}, range(FIRST_SEED, FIRST_SEED + seeds)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_remember, initargs=(yardstick, kept)) as pool:
        for name in methods:
            waiting = [pool.submit(run, name, sweep, seed, slots, trainings) for seed in chosen]
            runs[name] = [each.result() for each in waiting]
            trials = np.mean([each.trials for each in runs[name]])
            say(f"replay: {slots} at a time, {name}: {trials:.0f} trials a seed")
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, nargs="*", choices=SETUPS, default=[*SETUPS])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()
    setups = {slots: SETUPS[slots] for slots in given.slots}
    for section in measure(setups, given.seeds, given.threads, print, given.methods):
        print(section.markdown(), flush=True)


if __name__ == "__main__":
    main()
