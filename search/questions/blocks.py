"""What is asked, and the trials of a block that answer it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


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
    outcomes: Mapping[str, float]
    """Raw outcome (not its log) at the end, by question; NaN where the trial diverged."""
    diverged: bool
    nuisances: Mapping[str, float | str | bool | None]
    """What was drawn for the block, by dotted name."""


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
    """Effects are ratios of outcomes (contrasts of their logs), or plain differences (of slopes)."""
    across: bool
    """Whether each level runs at several values; the effect is then the difference of the slopes of log outcome on
    their log."""
