"""What a person sees while a sweep runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.config import Sweep
from search.journal import FINAL_OUTCOMES, Journal, TrialRecord

PLAIN_SECONDS = 10.0
ROWS = 8
PRIOR_TRIALS = 4


@contextmanager
def stage(console: Console, message: str) -> Iterator[Callable[[str], None]]:
    """Says what is going on while it goes on: a spinner on a terminal, one line elsewhere. Yields a way to say more."""
    if console.is_terminal:
        with console.status(message) as status:
            yield status.update
    else:
        console.print(f"{message} …", highlight=False)
        yield lambda _message: None


class SweepView:
    """Reads the journal at its own pace; the driver only calls `refresh` when it has a moment."""

    def __init__(self, sweep: Sweep, journal: Journal, console: Console) -> None:
        self.sweep = sweep
        self.journal = journal
        self.console = console
        self.started = time.monotonic()
        self._steps_before = sum(trial.step for trial in journal.trials())
        self._last = 0.0
        self._first_progress: tuple[float, int] | None = None
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> SweepView:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, message: str) -> None:
        """One line that stays."""
        self.console.print(message, highlight=False)

    def refresh(self, *, force: bool = False) -> None:
        now = time.monotonic()
        interval = 0.5 if self._live else PLAIN_SECONDS
        if now - self._last < interval and not force:
            return
        self._last = now
        trials = self.journal.trials()
        if self._live:
            self._live.update(self._table(trials), refresh=True)
        else:
            self.say(self._headline(trials))

    def _headline(self, trials: list[TrialRecord]) -> str:
        counts = Counter[str](trial.outcome for trial in trials)
        states = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "starting"
        done = sum(counts[outcome] for outcome in FINAL_OUTCOMES)
        elapsed = _duration(time.monotonic() - self.started)
        budget = self.sweep.config.budget.trials
        return f"{done} of {budget} trials done ({states}), {elapsed} so far, {self._remaining(trials)}"

    def _remaining(self, trials: list[TrialRecord]) -> str:
        """Forecast from the steps still expected and the rate so far."""
        steps_done = sum(trial.step for trial in trials)
        now = time.monotonic()
        if self._first_progress is None and steps_done > self._steps_before:
            self._first_progress = (now, steps_done)
        since, steps = self._first_progress or (now, steps_done)
        if steps_done <= steps:
            return "time left: measuring"
        rate = (steps_done - steps) / (now - since)
        left = self._expected_steps(trials) - steps_done
        return f"about {_duration(max(0.0, left) / rate)} left"

    def _expected_steps(self, trials: list[TrialRecord]) -> float:
        """Of the whole budget: ended trials as they are, the others as those on average, at first as the rungs let."""
        ended = [trial.step for trial in trials if trial.outcome in FINAL_OUTCOMES]
        prior = expected_steps_per_trial(self.sweep)
        mean = (sum(ended) + PRIOR_TRIALS * prior) / (len(ended) + PRIOR_TRIALS)
        running = [max(mean, trial.step) for trial in trials if trial.outcome not in FINAL_OUTCOMES]
        return sum(ended) + sum(running) + (self.sweep.config.budget.trials - len(trials)) * mean

    def _table(self, trials: list[TrialRecord]) -> RenderableType:
        done = sum(trial.outcome in FINAL_OUTCOMES for trial in trials)
        bar = Table.grid()  # a bar alone ends without a line break
        bar.add_row(ProgressBar(total=self.sweep.config.budget.trials, completed=done, width=40))
        return Group(Text(self._headline(trials), no_wrap=True), bar, self._trial_table(trials))

    def _trial_table(self, trials: list[TrialRecord]) -> Table:
        running = [trial for trial in trials if trial.outcome == "running"]
        ended = sorted((t for t in trials if t.outcome != "running"), key=lambda t: t.ended or 0.0)
        rows = min(ROWS, max(1, self.console.height - 5))
        return trial_table(self.sweep, self.journal, [*running, *reversed(ended)][:rows], fold=False)


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
    for title in ("trial", "outcome", "step", *sweep.config.objectives):
        table.add_column(title, justify="left" if title == "outcome" else "right", no_wrap=True)
    table.add_column("parameters", overflow="fold" if fold else "ellipsis", no_wrap=not fold)
    for trial in trials:
        evaluations = journal.evaluations(trial.number)
        metrics = evaluations[max(evaluations)] if evaluations else {}
        values = [f"{metrics[name]:.4g}" if name in metrics else "" for name in sweep.config.objectives]
        parameters = ", ".join(f"{name.split('.', 1)[1]} {_short(value)}" for name, value in trial.params.items())
        table.add_row(
            f"{'* ' if trial.number in starred else ''}{trial.number}",
            trial.outcome,
            str(trial.step),
            *values,
            parameters,
        )
    return table


def expected_steps_per_trial(sweep: Sweep) -> float:
    """Mean steps of a trial when each rung keeps its share."""
    steps, share, reached = 0.0, 1.0, 0
    for level in (*sweep.rungs, sweep.steps):
        steps += share * (level - reached)
        reached = level
        share /= getattr(sweep.config.scheduler, "reduction_factor", 1)
    return steps


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
