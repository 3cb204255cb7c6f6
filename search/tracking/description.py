"""Where a sweep stands and what it found, in words: the description of its run."""

from __future__ import annotations

from collections.abc import Sequence

from search.config.distributions import in_words
from search.config.sweep import Sweep
from search.journal.records import TrialRecord
from search.names import FINAL_OUTCOMES, Outcome, point_of
from search.standings.standings import Standings

TRIALS_SHOWN = 10


def describe(sweep: Sweep, current: Standings, trials: Sequence[TrialRecord], state: str) -> str:
    """The description in Markdown; `state` says whether the sweep runs, or why it ended."""
    drawn = [trial for trial in trials if trial.replicate_of is None]
    counts = {outcome: sum(t.outcome == outcome for t in drawn) for outcome in (*FINAL_OUTCOMES, Outcome.INTERRUPTED)}
    ended = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "none has ended"
    lines = [
        f"**{sweep.config.name}**: {state}. {len(drawn)} of {sweep.num_trials} trials: {ended}.",
        f"Hypervolume {current.hypervolume:.3f}. {current.scales.in_words()}",
        "",
        "| trial | " + " | ".join(sweep.config.objectives) + " | on front | with fresh seeds |",
        "|---|" + "---|" * (len(sweep.config.objectives) + 2),
    ]
    for trial in current.best[:TRIALS_SHOWN]:
        values = " | ".join(f"{current.metrics[trial.number][name]:.4g}" for name in sweep.config.objectives)
        front = "yes" if trial.number in current.front else "no"
        confirmation = current.confirmations.get(trial.number)
        name = f"{trial.number} {point_of(trial.origin)}".rstrip()
        lines.append(f"| {name} | {values} | {front} | {confirmation.in_words() if confirmation else ''} |")
    return "\n".join([*lines, "", _searched(sweep)])


def _searched(sweep: Sweep) -> str:
    config = sweep.config
    space = "\n".join(f"- `{name}`: {in_words(values)}" for name, values in sweep.space.parameters().items())
    return f"Sampler {config.sampler.name}, scheduler {config.scheduler.name}, {sweep.steps} steps.\n\n{space}"
