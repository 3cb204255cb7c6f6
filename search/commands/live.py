"""What a person sees while a sweep runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import replace

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.commands.words import best_in_words, trials_in_words
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.records import TrialRecord
from search.names import point_of
from search.standings.progress import NOT_TOLD, Progress, ahead, read_progress
from search.terminal import Screen, duration

LIVE_SECONDS = 0.5
PLAIN_SECONDS = 10.0
"""Without a terminal: shortest time between two lines, each for something that has changed."""
STILL_SECONDS = 60.0
"""And longest, while nothing changes but the steps."""
ROWS = 8


class SweepView:
    """Reads the journal at its own pace; the driver only calls `refresh` when it has a moment.

    `used` says what is used of every budget that is set.
    """

    def __init__(
        self,
        sweep: Sweep,
        journal: Journal,
        screen: Screen,
        used: Callable[[], Mapping[str, tuple[float, float]]] = dict,
    ) -> None:
        self.sweep = sweep
        self.journal = journal
        self.screen = screen
        self.used = used
        self.started = time.monotonic()
        self._steps_before = journal.steps()[1]
        self._looked = self._said_at = -math.inf
        self._said: object = None
        self._first_progress: tuple[float, int] | None = None
        self._live = Live(console=screen.console, auto_refresh=False, transient=True) if screen.is_terminal else None

    def __enter__(self) -> SweepView:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, message: str) -> None:
        """Shows one line that stays."""
        self.screen.say(message)

    def refresh(self, reached: Mapping[int, int] = NOT_TOLD, *, force: bool = False) -> None:
        now = time.monotonic()
        if now - self._looked < (LIVE_SECONDS if self._live else PLAIN_SECONDS) and not force:
            return
        self._looked = now
        progress = read_progress(self.sweep, self.journal, reached)
        headline = self._headline(progress)
        if self._live:
            self._live.update(self._table(progress, headline, reached), refresh=True)
            return
        news = (progress.counts, progress.best)
        if force or news != self._said or now - self._said_at >= STILL_SECONDS:
            self._said, self._said_at = news, now
            self.say(f"{headline}; {best_in_words(progress)}")

    def _headline(self, progress: Progress) -> str:
        elapsed = duration(time.monotonic() - self.started)
        budgets = "".join(f", {used:.3g} of {most:g} {name}" for name, (used, most) in self.used().items())
        return f"{trials_in_words(progress)}, {elapsed} so far{budgets}, {self._remaining(progress)}"

    def _remaining(self, progress: Progress) -> str:
        """Forecast from the steps still expected and the rate so far."""
        now = time.monotonic()
        if self._first_progress is None and progress.steps > self._steps_before:
            self._first_progress = (now, progress.steps)
        since, steps = self._first_progress or (now, progress.steps)
        if progress.steps <= steps:
            return "time left: measuring"
        rate = (progress.steps - steps) / (now - since)
        left = max(0.0, progress.expected_steps - progress.steps) / rate
        return f"{rate:.3g} steps/s, about {duration(left)} left"

    def _table(self, progress: Progress, headline: str, reached: Mapping[int, int]) -> RenderableType:
        bar = Table.grid()  # a bar alone ends without a line break
        bar.add_row(ProgressBar(total=progress.wanted, completed=progress.done, width=40))
        rows = min(ROWS, max(1, self.screen.console.height - 6))
        recent = [replace(trial, step=ahead(trial, reached)) for trial in self.journal.recent(rows)]
        trials = trial_table(self.sweep, self.journal, recent, fold=False)
        return Group(Text(headline, no_wrap=True), Text(best_in_words(progress), no_wrap=True), bar, trials)


def trial_table(
    sweep: Sweep,
    journal: Journal,
    trials: Iterable[TrialRecord],
    starred: Container[int] = (),
    *,
    fold: bool = True,
) -> Table:
    """One row a trial: outcome, step, objectives of its last evaluation, parameters (folded, or cut to one line).

    `starred` trials get a star.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    named = bool(sweep.config.points)
    for title in ("trial", *(["point"] if named else []), "outcome", "step", *sweep.config.objectives):
        table.add_column(title, justify="left" if title in ("point", "outcome") else "right", no_wrap=True)
    table.add_column("parameters", overflow="fold" if fold else "ellipsis", no_wrap=not fold)
    for trial in trials:
        evaluations = journal.evaluations(trial.number)
        metrics = evaluations[max(evaluations)] if evaluations else {}
        values = [f"{metrics[name]:.4g}" if name in metrics else "" for name in sweep.config.objectives]
        parameters = ", ".join(f"{name.split('.', 1)[-1]} {_short(value)}" for name, value in trial.params.items())
        table.add_row(
            f"{'* ' if trial.number in starred else ''}{trial.number}",
            *([point_of(trial.origin)] if named else []),
            trial.outcome,
            str(trial.step),
            *values,
            parameters,
        )
    return table


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
