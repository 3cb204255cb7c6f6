"""What is asked, and the trials of a block that answer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vaegan_core.evaluation import METRICS


@dataclass(frozen=True)
class BlockRun:
    """A trial of a block that has ended: at its last step, or by divergence."""

    number: int
    """The trial's."""
    block: int
    levels: Mapping[str, int]
    """Level by question; 0 is the reference. Questions that share the trial each have theirs."""
    across: Mapping[str, float]
    """Value (> 0) by question, of those alone that have one."""
    crossed: Mapping[str, str]
    """What else every level runs at, as text by question, of those alone that have something."""
    outcomes: Mapping[str, float]
    """Raw outcome (not its log) at the end, by question; NaN where the trial diverged."""
    diverged: bool
    nuisances: Mapping[str, float | str | bool | None]
    """What was drawn for the block, by dotted name."""


def crossed_of(settings: Mapping[str, Sequence[str]], params: Mapping[str, object]) -> dict[str, str]:
    """A trial's `crossed`, from those settings by question and its parameters."""
    return {name: repr([params.get(each) for each in names]) for name, names in settings.items() if names}


@dataclass(frozen=True)
class Asked:
    """A question as it was registered."""

    name: str
    outcome: str
    """A validation metric, or words for its slope."""
    levels: tuple[str, ...]
    """Words for people, one per level."""
    smallest_effect: float
    """Below it nobody cares: a ratio (> 1), or a difference (> 0) where `scale` says so."""
    scale: Literal["ratio", "difference"]
    """Effects are ratios of outcomes (contrasts of their logs), or plain differences."""
    across: bool
    """Whether each level runs at several values; the effect is then the difference of the slopes of log outcome on
    their log."""

    @property
    def worse(self) -> float:
        """1 where a larger outcome is worse, -1 where a smaller one is, 0 where neither."""
        better = METRICS[self.outcome].better if self.outcome in METRICS and not self.across else None
        return {"less": 1.0, "more": -1.0, None: 0.0}[better]
