"""What was searched, spent and found, in words: the first thing that a report says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from search.config.sweep import Sweep
from search.names import GPU_HOURS, TRIAL_HOURS, UNFINISHED_OUTCOMES, Outcome
from search.report.health import Check
from search.terminal import counted, listed
from search.tracking.evaluations import Evaluations
from search.tracking.reader import SweepRun, TrialRun
from vaegan_core.evaluation import PIXEL_MSE

PARAMETERS_NAMED = 6
ORDER = (*Outcome,)


def recommended(sweep: SweepRun) -> TrialRun | None:
    """The best trial by the one rule for journal and MLflow (`best_first`); None where all violate a constraint, or
    none was completed."""
    best = sweep.ranked[0] if sweep.completed else None
    return best if best is not None and best.feasible else None


def words(sweep: SweepRun, evaluations: Evaluations, plan: Sweep | None) -> tuple[str, ...]:
    """Sentences, a paragraph each."""
    return tuple(
        part
        for part in (
            _searched(sweep, plan),
            _stands(sweep, plan),
            _spent(sweep, evaluations, plan),
            *_found(sweep),
            ""
            if evaluations.complete
            else "Only the curves of the best trials could be read: this sweep is of an "
            "earlier version, which kept no table of all evaluations.",
        )
        if part
    )


def next_command(sweep: SweepRun, plan: Sweep | None, checks: Sequence[Check]) -> str:
    """What to type next."""
    if recommended(sweep) is not None and not _to_come(sweep, plan):
        return f"vaegan promote {sweep.name}"
    if any(trial.outcome == Outcome.RUNNING for trial in sweep.trials) or not sweep.trials or _draws_none(plan):
        return f"vaegan status {sweep.name}"
    if _to_come(sweep, plan):
        return f"vaegan resume {sweep.name}"
    acts = {check.name: check.command for check in checks if check.passed is False and check.command}
    return next(
        (acts[name] for name in ("failures", "divergence", "bounds of the space") if name in acts),
        f"vaegan resume {sweep.name} --extend 10",
    )


def _draws_none(plan: Sweep | None) -> bool:
    """Whether all trials of the sweep answer questions."""
    return plan is not None and plan.num_trials == 0


def _to_come(sweep: SweepRun, plan: Sweep | None) -> bool:
    """Whether trials run, wait to go on, or are still to be drawn."""
    drawn = plan is None or len(sweep.trials) >= plan.num_trials
    return not drawn or any(trial.outcome in UNFINISHED_OUTCOMES for trial in sweep.trials)


def _searched(sweep: SweepRun, plan: Sweep | None) -> str:
    counts = Counter(name for trial in sweep.trials for name in trial.params)
    names = list(plan.space.parameters()) if plan else sorted(counts, key=lambda name: (-counts[name], name))
    shown = ", ".join(names[:PARAMETERS_NAMED])
    rest = f" and {len(names) - PARAMETERS_NAMED} more" if len(names) > PARAMETERS_NAMED else ""
    what = f"{counted(len(names), 'parameter')} ({shown}{rest})" if names else "named points alone"
    how = f", with sampler {plan.config.sampler.name} and scheduler {plan.config.scheduler.name}" if plan else ""
    steps = f", {plan.steps:,} steps a trial" if plan else ""
    if plan and _draws_none(plan) and not sweep.trials:
        return f"All trials of {sweep.name} answer questions; each block of them draws {what}."
    return f"{sweep.name} searched {what} to minimize {listed(sweep.objectives)}{how}{steps}."


def _stands(sweep: SweepRun, plan: Sweep | None) -> str:
    """Whether it still runs, is interrupted, or has not begun; "" for a sweep that has ended."""
    if not sweep.trials:
        return "" if _draws_none(plan) else "No trial has begun yet."
    if not _to_come(sweep, plan):
        return ""
    running = sum(trial.outcome == Outcome.RUNNING for trial in sweep.trials)
    waiting = sum(trial.outcome == Outcome.INTERRUPTED for trial in sweep.trials)
    left = max(0, plan.num_trials - len(sweep.trials)) if plan else 0
    parts = [f"{running} running" if running else "", f"{waiting} interrupted" if waiting else ""]
    parts.append(f"{left} still to be drawn" if left else "")
    state = "It still runs" if running else "It has not ended"
    return f"{state}: {listed([part for part in parts if part])}. What follows is what is known so far."


def _spent(sweep: SweepRun, evaluations: Evaluations, plan: Sweep | None) -> str:
    if not sweep.trials:
        return ""
    counts = Counter(trial.outcome for trial in sweep.trials)
    ends = listed([f"{counts[outcome]} {outcome}" for outcome in ORDER if counts[outcome]])
    steps = sum(trial.step for trial in sweep.trials)
    saved = sum(plan.steps - t.step for t in sweep.trials if t.outcome == Outcome.PRUNED) if plan else 0
    less = f" (early stopping saved {saved / (saved + steps):.0%})" if saved > 0 else ""
    time = "".join(f", {text}" for text in _hours(sweep, evaluations))
    return f"It spent {counted(len(sweep.trials), 'trial')}: {ends}; {steps:,} steps{less}{time}."


def _hours(sweep: SweepRun, evaluations: Evaluations) -> Iterator[str]:
    """Hours of training over all trials and replicates, and GPU hours if it had any."""
    hours = sweep.metrics.get(TRIAL_HOURS)
    if hours is None and len(evaluations) and not np.isnan(evaluations.seconds).any():
        hours = float(evaluations.seconds.sum()) / 3600
    if hours:
        yield f"{hours:.1f} hours of training" if hours >= 1 else f"{60 * hours:.2g} minutes of training"
    if gpu_hours := sweep.metrics.get(GPU_HOURS):
        yield f"{gpu_hours:.1f} GPU hours"


def _found(sweep: SweepRun) -> Iterator[str]:
    """The recommended trial, why it, and how sure that is; or why there is none."""
    best = recommended(sweep)
    if best is None:
        if sweep.completed:
            yield "Every completed trial violates a constraint, so that none may be recommended."
        elif sweep.trials:
            yield "No trial has reached the last step, so that none may be recommended."
        return
    values = listed([f"{name} {best.final[name]:.4g}" for name in sweep.objectives])
    yield f"Recommended is trial {best.number}, with {values}: {_why(sweep, best)}."
    yield _how_sure(sweep, best)


def _why(sweep: SweepRun, best: TrialRun) -> str:
    count = len(sweep.completed)
    if count == 1:
        return "the only trial that reached the last step"
    kind = "confirmed trials" if best.confirmed else f"{count} completed trials"
    if len(sweep.objectives) == 1:
        return f"the smallest value of the {kind}"
    scales = sweep.scales
    if set(sweep.objectives) != {PIXEL_MSE, scales.distance}:
        return f"on the front of the {kind}, with the best sum of places"
    s1, s2 = scales.scores(best.final)
    worse = "; its reconstructions are worse than that" if s1 > 1 else ""
    scored = f"{s1:.0%} of the {scales.trivial}'s pixel MSE and {s2:.0%} of its distance above real frames"
    return f"the best balance of both objectives among the {kind}, {scored}{worse}"


def _how_sure(sweep: SweepRun, best: TrialRun) -> str:
    confirmation = best.confirmation
    if confirmation is None:
        return (
            "One seed only: it was chosen for being good, so that another seed is likely to be worse. Fresh seeds are "
            f"trained first by: vaegan promote {sweep.name}"
        )
    if not confirmation.mean:
        return f"Not confirmed: {confirmation.in_words()}."
    lost = "; a seed that diverged or failed speaks against it" if confirmation.lost else ""
    sure = f"Confirmed on fresh seeds, mean and 95 % interval: {confirmation.in_words()}{lost}."
    second = next((trial for trial in sweep.ranked[1:] if trial.confirmation and trial.confirmation.mean), None)
    if second is None or second.confirmation is None:
        return sure
    apart = [
        name
        for name in sweep.objectives
        if abs(confirmation.mean[name] - second.confirmation.mean[name])
        > confirmation.half_width[name] + second.confirmation.half_width[name]
    ]
    if apart:
        return f"{sure} Its interval and that of trial {second.number}, the next, do not overlap in {listed(apart)}."
    return f"{sure} The intervals of trial {second.number}, the next, overlap with these: either may be the better one."
