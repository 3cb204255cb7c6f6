"""What a report says about a sweep besides its numbers: words, health checks, and which parameters mattered."""

from __future__ import annotations

from dataclasses import dataclass

from search.config.sweep import Sweep
from search.tracking.evaluations import Evaluations
from search.tracking.reader import SweepRun


@dataclass(frozen=True)
class Check:
    """A health check of a sweep."""

    name: str
    passed: bool | None
    """None: it cannot be told, for the reason in `sentence`."""
    sentence: str
    command: str = ""
    """What to type to act on it; "" where there is nothing to do."""


@dataclass(frozen=True)
class Importance:
    """Share of an objective's variation among good values that a parameter explains, with a 95 % interval."""

    objective: str
    parameter: str
    share: float
    low: float
    high: float
    told: bool
    """Whether it can be told from a parameter that has no effect."""


@dataclass(frozen=True)
class Findings:
    """All of it, for one sweep."""

    words: tuple[str, ...]
    """What was searched, spent and found, and the recommended trial: sentences."""
    recommended: int | None
    """The recommended trial's number; None where none may be recommended."""
    command: str
    """What to type next."""
    checks: tuple[Check, ...]
    importances: tuple[Importance, ...]


def find(sweep: SweepRun, evaluations: Evaluations, plan: Sweep | None) -> Findings:  # noqa: ARG001
    """What there is to say about a sweep, from its runs, all evaluations and `read_plan`."""
    return Findings(
        words=(f"{len(sweep.trials)} trials, {len(sweep.completed)} of them completed.",),
        recommended=sweep.ranked[0].number if sweep.completed else None,
        command=f"vaegan promote {sweep.name}" if sweep.completed else f"vaegan resume {sweep.name}",
        checks=(),
        importances=(),
    )
