"""What the driver itself spends on a result and on a suggestion as a sweep grows: its search, scheduler and journal,
called as Tune calls them, over made-up reports of the size that real ones have."""

from __future__ import annotations

import math
import sqlite3
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
from methods import UNLIMITED, Ours, changed
from page import Section
from recording import OBJECTIVES, SWEEP
from rich.console import Console
from surrogate import evaluation_steps

from search.commands.live import SweepView
from search.config.load import load_sweep
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.running.tuner import make_search
from search.terminal import Screen
from vaegan_core.evaluation import Evaluation, Outcome, Point

MARKS = (100, 1000, 5000, 10000)
WINDOW = 50
"""Trials before a mark over which the cost of a result is averaged."""
ASKS = 10
CURVES, POINTS_PER_CURVE, PICTURES, PICTURE_BYTES = 40, 3, 2, 2000
"""Size of one report's pictures; real ones are larger, but only pass through."""
SHARE_DIVERGED = 0.1
LONGEST_ASK = 0.150


class Reports:
    """Made-up trainings: two objectives that fall from a level of their own, some diverge."""

    def __init__(self, sweep: Sweep) -> None:
        self.steps = evaluation_steps(sweep)
        self.rng = np.random.default_rng(0)

    def training(self) -> list[Evaluation]:
        levels = np.exp(self.rng.normal(size=len(OBJECTIVES)))
        diverged = self.rng.choice(self.steps) if self.rng.random() < SHARE_DIVERGED else math.inf
        found = []
        for step in self.steps:
            outcome: Outcome = "diverged" if step >= diverged else "completed" if step == self.steps[-1] else "running"
            values = levels * (1 + 1 / step) * np.exp(0.05 * self.rng.normal(size=len(levels)))
            metrics = {} if outcome == "diverged" else dict(zip(OBJECTIVES, map(float, values), strict=True))
            found.append(Evaluation(step, outcome, metrics, self._points(step), self._pictures()))
            if outcome == "diverged":
                break
        return found

    def _points(self, step: int) -> tuple[Point, ...]:
        keys = (f"train/curve-{number}" for number in range(CURVES))
        return tuple(Point(key, step - back, 1.0, step) for key in keys for back in range(POINTS_PER_CURVE))

    def _pictures(self) -> dict[str, bytes]:
        return {f"picture-{number}": self.rng.bytes(PICTURE_BYTES) for number in range(PICTURES)}


def measure(marks: tuple[int, ...], say: Callable[[str], None]) -> Section:
    """One growing sweep, measured at these numbers of trials."""
    sweep = load_sweep(SWEEP)
    sweep = changed(sweep, scheduler={"min_steps": evaluation_steps(sweep)[0]}, budget={"trials": UNLIMITED})
    rows: list[list[str]] = []
    reports, suggested, received = Reports(sweep), deque[float](maxlen=WINDOW), deque[list[float]](maxlen=WINDOW)
    with tempfile.TemporaryDirectory() as directory:
        ours = Ours(changed(sweep, sampler={"name": "random"}), Path(directory), slots=1)
        for number in range(1, marks[-1] + 1):
            suggested.append(seconds(lambda number=number: ours.suggest(f"trial-{number}")))
            received.append(receive(ours, f"trial-{number}", reports.training()))
            if number in marks:
                result = statistics.mean(each for trial in received for each in trial)
                first = statistics.mean(trial[0] for trial in received)
                view = SweepView(sweep, ours.journal, Screen(Console(file=StringIO())))
                refresh = seconds(lambda view=view: view.refresh(force=True))
                resume, ask = reopened(sweep, ours.journal)
                times = (result, first, statistics.mean(suggested), ask, refresh, resume)
                rows.append([f"{number:,}", *(f"{1000 * each:.1f} ms" for each in times)])
                say(f"driver: {' | '.join(rows[-1])}")
        ours.journal.close()
    return Section(
        "The driver's own cost: search, scheduler and journal, without training",
        [
            "trials so far",
            "a result",
            "a trial's first, at a rung",
            "suggest, random",
            "suggest, TPE",
            "view",
            "resume",
        ],
        rows,
        [
            f"A result with {CURVES * POINTS_PER_CURVE} curve points and {PICTURES} pictures: from Tune to the "
            f"scheduler, into the journal, at the end of a trial also to Optuna; mean over {WINDOW} trials. Suggest "
            "with the random sampler is what the driver adds to an ask of Optuna. View: one refresh of what the "
            "terminal shows. Resume: study and rungs rebuilt from the journal.",
            f"Aim: an ask of TPE under {1000 * LONGEST_ASK:.0f} ms at {marks[-1]:,} trials: "
            f"{1000 * ask:.0f} ms, {'reached' if ask < LONGEST_ASK else 'missed'}.",
        ],
    )


def receive(ours: Ours, trial_id: str, training: list[Evaluation]) -> list[float]:
    """Seconds of every result until the trial ended."""
    times, goes_on = [], True
    while goes_on:
        evaluation = training.pop(0)
        start = time.perf_counter()
        goes_on = ours.receive(trial_id, evaluation)
        times.append(time.perf_counter() - start)
    return times


def reopened(sweep: Sweep, journal: Journal) -> tuple[float, float]:
    """Seconds to resume a copy of the sweep, and the median of an ask of its TPE sampler."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal.db"
        copy_journal(journal.path, path)
        copied = Journal(path)
        made = []
        resume = seconds(lambda: made.append(make_search(sweep, copied, Path(directory), ASKS, lambda: False)))
        search, _ = made[0]
        ask = statistics.median(
            seconds(lambda number=number: search.suggest(f"ask-{number}")) for number in range(ASKS)
        )
        copied.close()
    return resume, ask


def copy_journal(source: Path, target: Path) -> None:
    """A copy of a journal in use."""
    db, copied = sqlite3.connect(source), sqlite3.connect(target)
    db.backup(copied)
    copied.close()
    db.close()


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
