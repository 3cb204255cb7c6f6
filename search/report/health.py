"""Health checks of a sweep: whether it can be believed, and what to type where it cannot."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from search.config.strategies import MODELS
from search.config.sweep import Sweep
from search.names import TIMES, Outcome, Tag
from search.paths import sweep_file
from search.report.importance import Importance
from search.report.searched import Compared, Searched, compared, searched
from search.report.statistics import (
    LEVEL,
    Bound,
    Region,
    at_bound,
    correlation,
    region_of,
    seeds_against_trials,
    slower,
)
from search.terminal import counted, listed
from search.tracking.evaluations import Evaluations
from search.tracking.reader import SweepRun, TrialRun
from search.tracking.runs import text_of

FEW = 10
"""Completed trials below which the best of them is luck to a good part."""
SLOWER = 1.25
"""Factor between the speeds of two machines from which it is worth a word."""
AGREES = 0.3
"""Rank correlation with the end below which a rung says next to nothing."""
MANY = 50
"""Trials among which an effect that is worth having would have shown."""


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
class Facts:
    """A sweep as its checks see it."""

    sweep: SweepRun
    evaluations: Evaluations
    plan: Sweep | None

    @cached_property
    def parameters(self) -> list[Searched]:
        return searched(self.sweep, self.plan)

    @cached_property
    def compared(self) -> Compared:
        return compared(self.sweep, self.evaluations, self.plan)

    def ended(self, outcome: Outcome) -> list[TrialRun]:
        return [trial for trial in self.sweep.trials if trial.outcome == outcome]

    def extend(self) -> str:
        return f"vaegan resume {self.sweep.name} --extend {max(10, len(self.sweep.trials) // 2)}"

    def anew(self, *overrides: str) -> str:
        """A new sweep with other settings, which begins with what this one found, unless its base is another."""
        sets = " ".join(f"--set {each}" for each in (f"name={self.sweep.name}-next", *overrides))
        known = "" if any(each.startswith("base.") for each in overrides) else f" --warm-start {self.sweep.name}"
        return f"vaegan sweep {sweep_file(self.sweep.name)} {sets}{known}"


def check_health(facts: Facts, importances: Sequence[Importance]) -> tuple[Check, ...]:
    """Every check, in the order of the page."""
    checks: tuple[Callable[[], Check], ...] = (
        lambda: bounds(facts),
        lambda: early_stopping(facts),
        lambda: effects(facts, importances),
        lambda: start_up(facts),
        lambda: divergence(facts),
        lambda: failures(facts),
        lambda: completed(facts),
        lambda: machines(facts),
    )
    return tuple(check() for check in checks)


# --- The space --------------------------------------------------------------------------------------------------------


def bounds(facts: Facts) -> Check:
    """Whether the best trials lie at an end of a range; how that is told: `at_bound`."""
    name = "bounds of the space"
    ranges = [each for each in facts.parameters if not each.choices and each.high > each.low]
    ranked = facts.compared.ranked(facts.sweep)
    if not ranges and facts.sweep.trials:
        return Check(name, None, "The space has no ranges, so that no bound can be in the way.")
    if len(ranked) < FEW:
        return Check(name, None, f"It takes {FEW} trials at equal steps to see bounds, and there are {len(ranked)}.")
    num_best = min(20, max(6, len(ranked) // 10))
    places = [np.array([p.place(n) if n in p.values else math.nan for n in ranked]) for p in ranges]
    crowded = at_bound(places, num_best, [_share_of_outer_tenth(each) for each in ranges])
    found = [each for each in crowded if _wider(ranges[each.parameter], each.upper) != _bound(ranges, each)]
    if not found:
        which = f"{len(ranges)} ranges{' that could be wider' if crowded else ''}"
        return Check(name, True, f"The best {num_best} trials do not crowd at a bound of any of {which}.")
    words = [f"{each.near} of the best {each.of} in the outer tenth of {_end(ranges, each)}" for each in found]
    return Check(name, False, f"{listed(words)}: widen it.", facts.anew(*(_widened(ranges, each) for each in found)))


def _share_of_outer_tenth(parameter: Searched) -> float:
    return max(0.1, 1 / (parameter.high - parameter.low + 1)) if parameter.whole else 0.1


def _bound(ranges: Sequence[Searched], bound: Bound) -> float:
    parameter = ranges[bound.parameter]
    return parameter.high if bound.upper else parameter.low


def _end(ranges: Sequence[Searched], bound: Bound) -> str:
    parameter = ranges[bound.parameter]
    which = "upper" if bound.upper else "lower"
    return f"{parameter.name}, at its {which} bound {parameter.text(_bound(ranges, bound))}"


def _wider(parameter: Searched, upper: bool) -> float:
    """An end that makes the range half as wide again, on its own scale; what was never negative stays so."""
    value = parameter.at(1.5 if upper else -0.5)
    if parameter.whole:
        value = math.ceil(value) if upper else math.floor(value)
    least = 1.0 if parameter.log and parameter.whole else 0.0
    return max(value, least) if not upper and parameter.low >= 0 else value


def _widened(ranges: Sequence[Searched], bound: Bound) -> str:
    parameter, value = ranges[bound.parameter], _wider(ranges[bound.parameter], bound.upper)
    which = "high" if bound.upper else "low"
    return f"{parameter.path or f'space.{parameter.name}'}.{which}={parameter.text(value)}"


def divergence(facts: Facts) -> Check:
    """Whether trials diverge at certain values of a parameter; how that is told: `region_of`."""
    name = "divergence"
    ends = np.array([trial.outcome == Outcome.DIVERGED for trial in facts.sweep.trials if trial.params])
    numbers = [trial.number for trial in facts.sweep.trials if trial.params]
    count = int(ends.sum())
    if not count:
        return Check(name, True, "No trial diverged.")
    parameters = facts.parameters
    region = region_of([p.column(numbers) for p in parameters], [bool(p.choices) for p in parameters], ends)
    said = f"{count} of {len(ends)} trials diverged"
    if region is None and 2 * count >= len(ends) > 2:
        first = facts.ended(Outcome.DIVERGED)[0].number
        sentence = f"{said}, in no one region: what they share is wrong, or most of the space."
        return Check(name, False, sentence, f"vaegan rerun {facts.sweep.name}/{first} --debug")
    if region is None:
        few = count < 3 or len(ends) < FEW
        return Check(name, None if few else True, f"{said}, {'too few to say where' if few else 'in no one region'}.")
    parameter = parameters[region.parameter]
    where, narrow = _cut_off(facts.plan, parameter, region)
    inside, outside = (f"{hit} of {of}" for hit, of in (region.inside, region.outside))
    sentence = f"{said}: {inside} with {parameter.name} {where}, {outside} elsewhere."
    return Check(name, False, sentence, facts.anew(*narrow))


def _cut_off(plan: Sweep | None, parameter: Searched, region: Region) -> tuple[str, list[str]]:
    """A region in words, and settings of a sweep without it that are valid: a prior of a value in it moves to the new
    bound, and if a named point lies in it, there are no points."""
    path = parameter.path or f"space.{parameter.name}"
    if parameter.choices:
        edge = parameter.text(region.low)
        others = ", ".join(choice for choice in parameter.choices if choice != edge)
        where, sets = f"= {edge}", [f"{path}='[{others}]'"] if parameter.path else []
    elif math.isinf(region.low):
        edge = parameter.text(region.high)
        where, sets = f"up to {edge}", [f"{path}.low={edge}"]
    else:
        edge = parameter.text(region.low)
        where, sets = f"from {edge}", [f"{path}.high={edge}"]

    def lies_there(value: Any) -> bool:
        if parameter.choices:
            return text_of(value) == edge
        return float(value) < float(edge) if math.isinf(region.low) else float(value) > float(edge)

    if plan is not None and sets:
        prior = plan.space.priors().get(parameter.name)
        if prior is not None and not parameter.choices and lies_there(prior.value):
            sets.append(f"{path}.prior.value={edge}")
        if any(lies_there(point[parameter.name]) for point in plan.config.points.values() if parameter.name in point):
            sets.append("points='{}'")
    return where, sets


# --- The method -------------------------------------------------------------------------------------------------------


def early_stopping(facts: Facts) -> Check:
    """Rank correlation of each rung with the end, and what stopping saved."""
    name, plan, sweep = "early stopping", facts.plan, facts.sweep
    stopped = facts.ended(Outcome.PRUNED)
    if plan is not None and not plan.rungs and not stopped:
        return Check(name, None, "No trial was to be stopped early.")
    if not stopped:
        return Check(name, None, "No trial has been stopped early yet.")
    full = plan.steps if plan else max((trial.step for trial in sweep.completed), default=0)
    saved = sum(max(0, full - trial.step) for trial in stopped)
    total = sum(trial.step for trial in sweep.trials) + saved
    share = f"Stopping {len(stopped)} trials early saved {saved:,} of {total:,} steps ({saved / max(1, total):.0%})"
    rungs = plan.rungs if plan else ()
    audited = [trial for trial in sweep.completed if plan is not None and plan.is_audited(trial.number)]
    judges = audited if len(audited) >= FEW else sweep.completed
    who = "audited trials" if judges is audited else "trials that went on, which understates it"
    found = list(_correlations(facts, rungs, judges))
    if not found:
        return Check(name, None, f"{share}. Too few trials went on to say how well a rung foretells the end.")
    words = listed([f"{rho:.2f} at step {step:,} ({key.removeprefix('val/')})" for step, key, (rho, _, _) in found])
    sentence = f"{share}. Rank correlation with the end over {len(judges)} {who}: {words}."
    blind = [step for step, _, (_, _, high) in found if high < AGREES]
    if blind:
        later = f"scheduler.min_steps={min(2 * max(blind), (max(blind) + full) // 2)}"
        return Check(name, False, f"{sentence} Step {max(blind):,} says next to nothing.", facts.anew(later))
    return Check(name, True if any(low > 0 for _, _, (_, low, _) in found) else None, sentence)


def _correlations(
    facts: Facts, rungs: Sequence[int], judges: Sequence[TrialRun]
) -> Iterator[tuple[int, str, tuple[float, float, float]]]:
    """(rung's step, metric, correlation with its interval) where there is one."""
    keys = facts.plan.stopping_metrics if facts.plan else facts.sweep.objectives
    for step in rungs:
        for key in keys:
            pairs = [
                (curve[step], trial.final[key])
                for trial in judges
                if step in (curve := dict(facts.evaluations.curve(trial.number, key))) and key in trial.final
            ]
            found = correlation([pair[0] for pair in pairs], [pair[1] for pair in pairs])
            if not math.isnan(found[0]):
                yield step, key, found


def effects(facts: Facts, importances: Sequence[Importance]) -> Check:
    """Whether trials differ by more than seeds do; without replicates, whether any parameter matters."""
    name = "effects beyond noise"
    replicated = list(_seeds(facts))
    if replicated:
        best = min(replicated, key=lambda each: each[2])
        words = listed([f"{ratio:.1f} times in {key.removeprefix('val/')}" for key, ratio, _ in replicated])
        if best[2] <= LEVEL / len(replicated):
            return Check(name, True, f"Trials differ by more than seeds of the same trial do: {words}.")
        said = f"Trials do not differ by more than seeds of the same trial do: {words}"
        return Check(name, False, f"{said}; the order of the trials is luck.", facts.anew("confirm.seeds=5"))
    told = sorted({each.parameter for each in importances if each.told})
    if told:
        return Check(name, True, f"The objectives follow {listed(told)} by more than chance.")
    number = len(facts.compared.numbers)
    if number < MANY:
        return Check(name, None, f"{number} trials without fresh seeds do not tell effects from noise.", facts.extend())
    longer = [f"base.train.steps={2 * facts.plan.steps}"] if facts.plan else []
    said = f"No parameter has an effect that {number} trials could tell from noise"
    return Check(name, False, f"{said}; widen the space, or train longer.", facts.anew(*longer))


def _seeds(facts: Facts) -> Iterator[tuple[str, float, float]]:
    """(objective, ratio of spreads, p) by `seeds_against_trials`, of logarithms where all are positive."""
    evaluations, finished = facts.evaluations, facts.sweep.completed
    steps = {trial.number: trial.step for trial in finished}
    for key in facts.sweep.objectives:
        groups = []
        for number in {int(n) for n in evaluations.replicate_of[evaluations.replicate_of >= 0]}:
            curves = [evaluations.curve(other, key) for other in evaluations.replicates(number)]
            groups.append([c[-1][1] for c in curves if c and c[-1][0] == steps.get(number)])
        values = [trial.final[key] for trial in finished if key in trial.final]
        if all(value > 0 for value in [*values, *(v for group in groups for v in group)]):
            values, groups = [math.log(v) for v in values], [[math.log(v) for v in group] for group in groups]
        found = seeds_against_trials(values, groups)
        if found is not None:
            yield key, *found


def start_up(facts: Facts) -> Check:
    """Whether the sampler's model ever proposed a trial."""
    name, plan = "sampler", facts.plan
    if plan is None:
        return Check(name, None, "What the sampler was cannot be read from this sweep's file.")
    sampler = plan.config.sampler
    if sampler.name not in MODELS:
        return Check(name, True, f"{sampler.name} has no start-up and no model.")
    origins = Counter(trial.tags.get(Tag.ORIGIN, "").partition(TIMES)[0] for trial in facts.sweep.trials)
    if not origins:
        return Check(name, None, "No trial has been drawn yet.")
    if origins[sampler.name]:
        return Check(name, True, f"{sampler.name} proposed {origins[sampler.name]} of {origins.total()} trials itself.")
    said = f"All {origins.total()} trials are points, priors or the start-up design: {sampler.name} has not begun"
    return Check(name, False, f"{said} (sampler.startup_trials is {sampler.startup_trials}).", facts.extend())


def completed(facts: Facts) -> Check:
    """Whether enough trials reached the last step."""
    name, count, of = "completed trials", len(facts.sweep.completed), len(facts.sweep.trials)
    if count >= FEW:
        return Check(name, True, f"{count} of {of} trials reached the last step.")
    luck = "there is no best trial" if not count else "the best of them may be luck"
    return Check(name, False, f"{count} of {of} trials reached the last step: {luck}.", facts.extend())


# --- The machines -----------------------------------------------------------------------------------------------------


def failures(facts: Facts) -> Check:
    """What failed, or could not begin, by cause."""
    name, sweep = "failures", facts.sweep
    failed, impossible = facts.ended(Outcome.FAILED), facts.ended(Outcome.IMPOSSIBLE)
    if not failed and not impossible:
        return Check(name, True, "No trial failed.")
    causes: dict[str, list[str]] = {}
    for trial in [*failed, *impossible]:
        causes.setdefault(without_numbers(_cause(trial)), []).append(_cause(trial))
    most = sorted(causes.values(), key=len, reverse=True)[:3]
    said = listed([f"{len(alike)} × {alike[0]}" for alike in most])
    rest = f", and {counted(len(causes) - 3, 'other cause')}" if len(causes) > 3 else ""
    sentence = f"{len(failed) + len(impossible)} of {len(sweep.trials)} trials failed: {said}"
    command = f"vaegan resume {sweep.name} --retry-failed" if failed else facts.anew()
    return Check(name, False, f"{sentence}{rest}.", command)


def without_numbers(reason: str) -> str:
    """A reason with its numbers hidden: those that differ in nothing else are one."""
    return re.sub(r"\d+", "#", reason)


def _cause(trial: TrialRun) -> str:
    reason = trial.tags.get(Tag.REASON, "").strip() or "no reason given"
    return reason if len(reason) <= 90 else f"{reason[:89]}…"


def machines(facts: Facts) -> Check:
    """Speeds of hosts, kinds of devices, and trials that moved or computed a step again with another value."""
    name, sweep = "machines", facts.sweep
    again = [trial for trial in sweep.trials if trial.tags.get(Tag.MISMATCH)]
    if again:
        said = f"{len(again)} resumed trials computed steps again with other values, first trial {again[0].number}"
        return Check(name, False, f"{said} ({again[0].tags[Tag.MISMATCH]}).", f"vaegan rerun {again[0].run_id}")
    hosts = sorted({trial.tags[Tag.HOST] for trial in sweep.trials if trial.tags.get(Tag.HOST)})
    kinds = sorted({trial.tags[Tag.DEVICE] for trial in sweep.trials if trial.tags.get(Tag.DEVICE)})
    moved = sum(bool(trial.tags.get(Tag.MOVED)) for trial in sweep.trials)
    bits = " Their numbers agree within seed noise, not bit for bit." if len(kinds) > 1 or moved else ""
    went = f"; {moved} moved on the way" if moved else ""
    said = f"{len(hosts)} {'host' if len(hosts) == 1 else 'hosts'}, {listed(kinds) or 'device unknown'}{went}.{bits}"
    speeds = _speeds(facts)
    if len(speeds) < 2 or slower(list(speeds.values())) > LEVEL:
        return Check(name, True if hosts else None, said if hosts else "Where trials ran is not known.")
    medians = {host: float(np.median(values)) for host, values in speeds.items()}
    slow, fast = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
    factor = medians[fast] / medians[slow]
    if factor < SLOWER:
        return Check(name, True, said)
    sentence = (
        f"{slow} is {factor:.1f} times slower than {fast} ({len(speeds[slow])} and {len(speeds[fast])} trials). {said}"
    )
    return Check(name, False, sentence, f"vaegan status {sweep.name}")


def _speeds(facts: Facts) -> dict[str, list[float]]:
    """Steps per second of trials, by host; of hosts with at least three trials."""
    evaluations = facts.evaluations
    speeds: dict[str, list[float]] = {}
    for number in evaluations.numbers:
        rows = evaluations.rows(number)
        seconds, hosts = evaluations.seconds[rows], evaluations.host[rows]
        if len(set(hosts)) != 1 or np.isnan(seconds).any() or seconds.sum() <= 0 or not hosts[0]:
            continue
        speeds.setdefault(str(hosts[0]), []).append(float(evaluations.step[rows][-1] / seconds.sum()))
    return {host: values for host, values in speeds.items() if len(values) >= 3}
