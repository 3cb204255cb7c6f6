"""How far a sweep has come, what is left, and how far a trial is expected to go."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.records import TrialRecord
from search.names import FINAL_OUTCOMES, UNFINISHED_OUTCOMES, Outcome
from search.paths import STEPS_FILE
from search.standings.blocks import Blocks

PRIOR_TRIALS = 4
"""Weight of the rung schedule against the mean of ended trials, in trials."""


@dataclass(frozen=True)
class Progress:
    """Where a sweep stands, from its journal."""

    counts: dict[Outcome, int]
    """Number of trials by outcome, replicates included."""
    drawn: int
    """Trials begun that count against the budget: all that do not stand apart."""
    budget: int
    """Trials of the whole sweep that do not stand apart."""
    steps: int
    """Steps trained so far, over all trials."""
    expected_steps: float
    """Steps of the whole sweep: ended trials as counted, the others at their mean, starting from the rung schedule."""
    best: dict[str, tuple[int, float]]
    """(trial, value) of the smallest value of each objective among the completed trials that violate no constraint."""
    of_blocks: int = 0
    """Trials that are missing from the blocks of questions up to the next look."""
    all_violate: bool = False
    """Whether trials have completed, each of which violates a constraint."""

    @property
    def done(self) -> int:
        return sum(self.counts.get(outcome, 0) for outcome in FINAL_OUTCOMES)

    @property
    def wanted(self) -> int:
        """Trials of the budget, replicates begun so far, and trials of blocks up to the next look."""
        return self.budget + sum(self.counts.values()) - self.drawn + self.of_blocks


NOT_TOLD: Mapping[int, int] = MappingProxyType({})


def read_progress(sweep: Sweep, journal: Journal, reached: Mapping[int, int] = NOT_TOLD) -> Progress:
    """Counts a sweep's trials and steps, and forecasts the steps still to come. `reached` holds steps of running trials
    since their last evaluation."""
    ended_steps = journal.steps(*FINAL_OUTCOMES)[1]
    own, own_steps = journal.own_steps(*FINAL_OUTCOMES)
    total, steps = journal.steps()
    budget = sweep.num_trials
    prior = expected_end(sweep)
    mean = (own_steps + PRIOR_TRIALS * prior) / (own + PRIOR_TRIALS)
    running = sum(_expected_end_of(sweep, trial) for trial in journal.trials(*UNFINISHED_OUTCOMES))
    steps += sum(ahead(trial, reached) - trial.step for trial in journal.trials(Outcome.RUNNING))
    drawn = journal.num_drawn()
    confirm = sweep.config.confirm
    blocks = Blocks(sweep, journal)
    begun = total - drawn - blocks.begun
    replicates = min(confirm.top, budget) * confirm.seeds - begun if confirm else 0
    expected = ended_steps + running + max(0, budget - drawn) * mean + max(0, replicates) * sweep.steps
    expected += blocks.to_come * sweep.block_steps
    objectives = sweep.config.objectives
    best = {name: smallest for name in objectives if (smallest := _best(sweep, journal, name))}
    all_violate = not best and any(True for _ in journal.best_first(objectives[0]))
    return Progress(journal.counts(), drawn, budget, steps, expected, best, blocks.to_come, all_violate)


def _best(sweep: Sweep, journal: Journal, objective: str) -> tuple[int, float] | None:
    found = journal.best_first(objective)
    return next(((trial, value) for trial, value, metrics in found if sweep.feasible(metrics)), None)


def _expected_end_of(sweep: Sweep, trial: TrialRecord) -> float:
    """Step at which a trial that runs, or will run again, ends on average."""
    if trial.apart:
        return sweep.steps if trial.block is None else sweep.block_steps
    return expected_end(sweep, trial.step)


def ahead(trial: TrialRecord, reached: Mapping[int, int]) -> int:
    """A running trial's step: that of its last evaluation, or where it was heard of since."""
    return max(trial.step, reached.get(trial.number, 0)) if trial.outcome == Outcome.RUNNING else trial.step


def keep_steps(directory: Path, steps: Mapping[int, int]) -> None:
    """Writes where the trials of the sweep in `directory` are, for other processes."""
    unfinished = directory / f"{STEPS_FILE}.tmp"
    unfinished.write_text(json.dumps(steps))
    os.replace(unfinished, directory / STEPS_FILE)


def read_steps(directory: Path) -> dict[int, int]:
    """Where the trials were when the driver last heard of them; empty where nothing is known."""
    try:
        return {int(trial): int(step) for trial, step in json.loads((directory / STEPS_FILE).read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def expected_end(sweep: Sweep, step: int = 0) -> float:
    """Step at which a trial that has reached `step` ends on average, if each rung keeps its share of trials."""
    end, share, before = float(step), 1.0, step
    for level in (level for level in (*_verdicts(sweep), sweep.steps) if level > step):
        end += share * (level - before)
        share /= getattr(sweep.config.scheduler, "reduction_factor", 1)
        before = level
    return end


def _verdicts(sweep: Sweep) -> list[int]:
    """Steps at which a trial may be stopped, ascending: the first validation at or after each rung."""
    evaluate = sweep.evaluate
    first = {
        min(
            math.ceil(rung / evaluate.every) * evaluate.every,
            *(step for step in (*evaluate.also_at, sweep.steps) if step >= rung),
        )
        for rung in sweep.rungs
    }
    return sorted(first - {sweep.steps})


def expected_steps(sweep: Sweep) -> float:
    """Number of steps with early stopping, confirmation and blocks of questions up to the first look included."""
    blocks = sweep.trials_of_block * sweep.config.blocks.at_least * sweep.block_steps
    return sweep.num_trials * expected_end(sweep) + confirming_steps(sweep) + blocks


def most_steps(sweep: Sweep) -> int:
    """Number of steps without early stopping, with as many blocks as there may be."""
    blocks = sweep.trials_of_block * sweep.config.blocks.at_most * sweep.block_steps
    return sweep.num_trials * sweep.steps + confirming_steps(sweep) + blocks


def confirming_steps(sweep: Sweep) -> int:
    """Number of steps of the replicates that `confirm` asks for."""
    confirm = sweep.config.confirm
    return min(confirm.top, sweep.num_trials) * confirm.seeds * sweep.steps if confirm else 0
