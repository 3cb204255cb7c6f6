"""Where a sweep stands and what it found, in words: the description of its run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from search.config.distributions import in_words
from search.config.sweep import Sweep
from search.journal.records import TrialRecord
from search.names import FINAL_OUTCOMES, Outcome, point_of
from search.standings.blocks import Standing
from search.standings.standings import Standings
from search.tracking.runs import text_of

TRIALS_SHOWN = 10
VALUES_NAMED = 3
LONGEST_NAME = 70
RUNNING = "running"
"""State of a sweep that has not ended."""


def run_name(sweep: Sweep, trial: TrialRecord) -> str:
    """What MLflow's pages call a trial: its number, and the point it was or some values that tell it from others."""
    if trial.replicate_of is not None:
        return f"trial {trial.replicate_of} again, fresh seed, as trial {trial.number}"
    if trial.block is not None:
        changed = [question for question, level in trial.block.levels.items() if level]
        parts = [f"trial {trial.number}", trial.origin, ", ".join(changed) or "reference"]
        return " · ".join(parts)[:LONGEST_NAME]
    parts = [f"trial {trial.number}", point_of(trial.origin) or " · ".join(_telling(sweep, trial))]
    return " · ".join(part for part in parts if part)[:LONGEST_NAME]


def _telling(sweep: Sweep, trial: TrialRecord) -> list[str]:
    """The trial's first range, first branch, and whatever comes first of the rest, in the order of the space."""
    branches = sweep.space.branches()
    ranges = [name for name, values in sweep.space.parameters().items() if not hasattr(values, "choices")]
    order = [*ranges[:1], *branches[:1], *sweep.space.parameters()]
    names = [name for name in dict.fromkeys(order) if name in trial.params][:VALUES_NAMED]
    ends = Counter(name.rpartition(".")[2] for name in sweep.space.parameters())
    told = []
    for name in names:
        value, end = trial.params[name], name.rpartition(".")[2]
        text = f"{value:.2g}" if isinstance(value, float) else text_of(value)
        short = end if ends[end] == 1 else ".".join(name.split(".")[-2:])
        told.append(text if name in branches else f"{short} {text}")
    return told


def describe(
    sweep: Sweep,
    current: Standings,
    trials: Sequence[TrialRecord],
    state: str,
    links: str,
    asked: Sequence[Standing] = (),
) -> str:
    """The description in Markdown; `state` says whether the sweep runs, or why it ended, and `links` lead on."""
    drawn = [trial for trial in trials if not trial.apart]
    in_blocks = [trial for trial in trials if trial.block is not None]
    said = [f"{len(drawn)} of {sweep.num_trials} trials: {_ended(drawn)}."] if sweep.num_trials or drawn else []
    said += [f"{len(in_blocks)} trials of blocks: {_ended(in_blocks)}."] if asked or in_blocks else []
    lines = [
        f"{links}\n",
        f"**{sweep.config.name}**: {state}. {' '.join(said)}",
        *([""] if asked else []),
        *(f"- {each.in_words()}" for each in asked),
        *([""] if asked else []),
        *(_ranked(sweep, current) if sweep.num_trials or drawn else []),
    ]
    return "\n".join([*lines, "", _searched(sweep)])


def _ended(trials: Sequence[TrialRecord]) -> str:
    """How many trials ended in which way."""
    counts = {outcome: sum(t.outcome == outcome for t in trials) for outcome in (*FINAL_OUTCOMES, Outcome.INTERRUPTED)}
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "none has ended"


def _ranked(sweep: Sweep, current: Standings) -> Iterator[str]:
    """The best trials, as a table."""
    yield f"Hypervolume {current.hypervolume:.3f}. {current.scales.in_words()}"
    yield ""
    yield "| trial | " + " | ".join(sweep.config.objectives) + " | on front | with fresh seeds |"
    yield "|---|" + "---|" * (len(sweep.config.objectives) + 2)
    for trial in current.best[:TRIALS_SHOWN]:
        values = " | ".join(f"{current.metrics[trial.number][name]:.4g}" for name in sweep.config.objectives)
        front = "yes" if trial.number in current.front else "no"
        confirmation = current.confirmations.get(trial.number)
        name = f"{trial.number} {point_of(trial.origin)}".rstrip()
        yield f"| {name} | {values} | {front} | {confirmation.in_words() if confirmation else ''} |"


def _searched(sweep: Sweep) -> str:
    config = sweep.config
    space = "\n".join(f"- `{name}`: {in_words(values)}" for name, values in sweep.space.parameters().items())
    how = f"Sampler {config.sampler.name}, scheduler {config.scheduler.name}, {sweep.steps} steps."
    blocks = f"Drawn for blocks, whose trials have {sweep.block_steps} steps:"
    return f"{how if sweep.num_trials else blocks}\n\n{space}"
