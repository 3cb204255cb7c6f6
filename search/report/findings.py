"""What a report says about a sweep besides its numbers: words, health checks, and which parameters mattered."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from search.config.sweep import Sweep
from search.report.health import Check, Facts, check_health
from search.report.importance import FEWEST_TRIALS, MOST_TRIALS, Column, Importance, importances
from search.report.searched import Searched
from search.report.words import next_command, recommended, words
from search.tracking.evaluations import Evaluations
from search.tracking.reader import SweepRun

GOOD_PART = 4
"""The best trials, one in this number, count as good."""


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
    basis: str = ""
    """What the importances were told from, in a sentence."""


def find(sweep: SweepRun, evaluations: Evaluations, plan: Sweep | None) -> Findings:
    """What there is to say about a sweep, from its runs, all evaluations and `read_plan`."""
    facts = Facts(sweep, evaluations, plan)
    with threadpool_limits(limits=1):  # matrices so small take several threads several times as long
        found = [each for objective in sweep.objectives for each in _importances(facts, objective)]
    checks = check_health(facts, found)
    best = recommended(sweep)
    return Findings(
        words=words(sweep, evaluations, plan),
        recommended=best.number if best else None,
        command=next_command(sweep, plan, checks),
        checks=checks,
        importances=tuple(found),
        basis=_basis(facts),
    )


def _importances(facts: Facts, objective: str) -> list[Importance]:
    """One for every parameter that any compared trial has, with its good values."""
    numbers = sorted(facts.compared.numbers)
    by_number = dict(zip(facts.compared.numbers, facts.compared.values(objective).tolist(), strict=True))
    values = np.array([by_number[number] for number in numbers])
    columns = [Column(each.name, each.column(numbers), bool(each.choices)) for each in facts.parameters]
    by_name = {each.name: each for each in facts.parameters}
    return [
        replace(each, good=good_values(by_name[each.parameter], numbers, values)) if each.told else each
        for each in importances(objective, columns, values)
    ]


def good_values(parameter: Searched, numbers: Sequence[int], values: np.ndarray) -> str:
    """Where the parameter's values of the best trials lie, in a sentence."""
    having = np.array([number in parameter.values for number in numbers])
    order = [numbers[index] for index in np.argsort(values) if having[index]]
    best = order[: max(5, len(order) // GOOD_PART)]
    if parameter.choices:
        return _good_choices(parameter, best, order)
    taken = [parameter.values[number] for number in best]
    low, high = (parameter.text(value) for value in np.quantile(taken, [0.1, 0.9], method="nearest"))
    return f"Good trials lie between {low} and {high}." if low != high else f"Good trials have {low}."


def _good_choices(parameter: Searched, best: Sequence[int], all_of: Sequence[int]) -> str:
    """The choice that is most over-represented among the best."""
    counts, among = (Counter(parameter.values[number] for number in group) for group in (best, all_of))
    value = max(counts, key=lambda each: counts[each] / math.sqrt(among[each]))
    share = among[value] / len(all_of)
    return f"Good trials have {parameter.text(value)}: {counts[value]} of the best {len(best)}, {share:.0%} of all."


def _basis(facts: Facts) -> str:
    compared = facts.compared
    count = len(compared.numbers)
    if count < FEWEST_TRIALS:
        return f"It takes {FEWEST_TRIALS} trials at equal steps to say what mattered, and there are {count}."
    sampled = f", sampled down to {MOST_TRIALS}" if count > MOST_TRIALS else ""
    return f"From {count:,} trials at step {compared.step:,}{sampled}; diverged trials are left out."
