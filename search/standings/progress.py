"""How far a sweep is, what is left of it, and how far a trial is expected to go."""

from __future__ import annotations

from dataclasses import dataclass

from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.names import FINAL_OUTCOMES, UNFINISHED_OUTCOMES, Outcome

PRIOR_TRIALS = 4


@dataclass(frozen=True)
class Progress:
    """Where a sweep stands, as the journal tells it."""

    counts: dict[Outcome, int]
    """Trials by outcome, replicates among them."""
    drawn: int
    """Of the budget of trials."""
    budget: int
    steps: int
    expected_steps: float
    """Of the whole budget: ended trials as they are, the others as those on average, at first as the rungs let."""
    best: dict[str, tuple[int, float]]
    """Of each objective: trial and value."""

    @property
    def done(self) -> int:
        return sum(self.counts.get(outcome, 0) for outcome in FINAL_OUTCOMES)

    @property
    def wanted(self) -> int:
        """Trials of the budget, and replicates begun so far."""
        return self.budget + sum(self.counts.values()) - self.drawn


def read_progress(sweep: Sweep, journal: Journal) -> Progress:
    ended, ended_steps = journal.steps(*FINAL_OUTCOMES)
    total, steps = journal.steps()
    budget = sweep.num_trials
    prior = expected_end(sweep)
    mean = (ended_steps + PRIOR_TRIALS * prior) / (ended + PRIOR_TRIALS)
    running = sum(expected_end(sweep, trial.step) for trial in journal.trials(*UNFINISHED_OUTCOMES))
    drawn = journal.num_drawn()
    confirm = sweep.config.confirm
    replicates = confirm.top * confirm.seeds - (total - drawn) if confirm else 0
    expected = ended_steps + running + max(0, budget - drawn) * mean + max(0, replicates) * sweep.steps
    best: dict[str, tuple[int, float]] = {
        name: found for name in sweep.config.objectives if (found := journal.best(name))
    }
    return Progress(journal.counts(), drawn, budget, steps, expected, best)


def expected_end(sweep: Sweep, step: int = 0) -> float:
    """Step at which a trial that has come to `step` ends on average, when each rung keeps its share."""
    end, share = float(step), 1.0
    for level in (level for level in (*sweep.rungs, sweep.steps) if level > step):
        end += share * (level - max(step, *(rung for rung in (0, *sweep.rungs) if rung < level)))
        share /= getattr(sweep.config.scheduler, "reduction_factor", 1)
    return end
