"""Progress in words."""

from __future__ import annotations

from search.standings.progress import Progress
from search.terminal import counted


def trials_in_words(progress: Progress) -> str:
    """How many trials are done, by outcome."""
    states = ", ".join(f"{count} {outcome}" for outcome, count in sorted(progress.counts.items())) or "starting"
    return f"{progress.done} of {counted(progress.wanted, 'trial')} done ({states})"


def best_in_words(progress: Progress) -> str:
    """The best value of each objective so far."""
    best = ", ".join(f"{name} {value:.4g} (trial {number})" for name, (number, value) in progress.best.items())
    if not best and not progress.budget:
        return "no trials but those that answer questions"
    if progress.all_violate:
        return "every trial that completed violates a constraint"
    return f"best: {best}" if best else "no trial completed yet"
