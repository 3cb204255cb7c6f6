"""Where a sweep stands and what it found, in words for the description of its run."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.config.sweep import Sweep
from search.journal.records import TrialRecord
from search.names import FINAL_OUTCOMES
from search.standings.standings import Confirmation, Standings

TRIALS_SHOWN = 10


def summarise(sweep: Sweep, found: Standings, trials: Sequence[TrialRecord], state: str) -> str:
    """The parent run's description, in Markdown; `state` says whether the sweep runs, or why it ended."""
    drawn = [trial for trial in trials if trial.replicate_of is None]
    counts = {outcome: sum(t.outcome == outcome for t in drawn) for outcome in (*FINAL_OUTCOMES, "interrupted")}
    ended = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "none has ended"
    lines = [
        f"**{sweep.config.name}**: {state}. {len(drawn)} of {sweep.num_trials} trials: {ended}.",
        f"Hypervolume {found.hypervolume:.3f}. An image's own mean colour scores pixel MSE "
        f"{found.scales.mean_color_mse:.4f} and samples FD {found.scales.mean_color_fd:.0f}; "
        f"real frames against real frames score FD {found.scales.floor_fd:.0f}.",
        "",
        "| trial | " + " | ".join(sweep.config.objectives) + " | on front | with fresh seeds |",
        "|---|" + "---|" * (len(sweep.config.objectives) + 2),
    ]
    for trial in found.best[:TRIALS_SHOWN]:
        values = " | ".join(f"{found.metrics[trial.number][name]:.4g}" for name in sweep.config.objectives)
        again = in_words(found.confirmations.get(trial.number))
        lines.append(f"| {trial.number} | {values} | {'yes' if trial.number in found.front else 'no'} | {again} |")
    return "\n".join([*lines, "", _searched(sweep)])


def _searched(sweep: Sweep) -> str:
    config = sweep.config
    space = "\n".join(f"- `{name}`: {_choices(values)}" for name, values in sweep.space.parameters().items())
    return f"Sampler {config.sampler.name}, scheduler {config.scheduler.name}, {sweep.steps} steps.\n\n{space}"


def _choices(values: BaseDistribution) -> str:
    if isinstance(values, CategoricalDistribution):
        return ", ".join(str(choice) for choice in values.choices)
    assert isinstance(values, IntDistribution | FloatDistribution)
    return f"{values.low:g} to {values.high:g}{' (log)' if values.log else ''}"


def in_words(confirmation: Confirmation | None) -> str:
    if confirmation is None:
        return ""
    values = ", ".join(
        f"{name} {mean:.4g} ± {confirmation.half_width[name]:.2g}" for name, mean in confirmation.mean.items()
    )
    return f"{values} ({confirmation.completed} of {confirmation.begun} seeds)"
