"""The gates of a promotion, over plain values: each passes or fails with its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from search.config.sweep_config import PromoteConfig
from search.names import Outcome, Tag
from search.standings.candidates import CONFIDENCE, Confirmation
from search.standings.scales import Scales
from search.tracking.reader import TrialRun
from vaegan_core.evaluation import PIXEL_MSE


@dataclass(frozen=True)
class Gate:
    """One gate, judged."""

    name: str
    passed: bool
    words: str
    """The numbers, and for one that failed what to do."""
    run: bool = True
    """False: it could not be judged, which counts as failed."""
    forcible: bool = True
    """False: `--force` does not open it."""
    pending: bool = False
    """True in a dry run, where a promotion would train first and then judge."""

    def __str__(self) -> str:
        verdict = "pass" if self.passed else "FAIL" if self.run else "later" if self.pending else "not run"
        return f"  {verdict:<8}{self.name}: {self.words}"


# --- Of the trial alone -----------------------------------------------------------------------------------------------


def completed(trial: TrialRun) -> Gate:
    """Whether it reached its last step."""
    reason = trial.tags.get(Tag.REASON, "")
    words = f"{trial.outcome}{f' ({reason})' if reason else ''} at step {trial.step}"
    return Gate("completed", trial.outcome == Outcome.COMPLETED, words, forcible=False)


def constraints(trial: TrialRun, stated: Sequence[str]) -> Gate:
    """Whether it violates none of the sweep's constraints."""
    words = ", ".join(stated) or "the sweep has none"
    return Gate("constraints", trial.feasible, words if trial.feasible else f"violates {words}")


def diagnoses(trial: TrialRun, refused: Sequence[str]) -> Gate:
    """Whether none of the diagnoses that the sweep refuses was made."""
    made = [name for name in refused if trial.tags.get(name) == "true"]
    undecided = [name for name in refused if name not in trial.tags]
    words = ", ".join(made) or f"none of {', '.join(refused) or 'the diagnoses is asked for'}"
    return Gate("diagnoses", not made, words + (f" (undecided: {', '.join(undecided)})" if undecided else ""))


def weights(stored: str, tagged: str | None) -> Gate:
    """Whether the downloaded weights have the SHA-256 that the sweep tagged."""
    if tagged is None:
        words = f"the run has no tag {Tag.MODEL_SHA}, so nobody knows whether these are its weights ({stored[:12]}…)"
        return Gate("weights", False, words, run=False)
    if stored == tagged:
        return Gate("weights", True, f"SHA-256 {stored[:12]}…, as tagged")
    words = f"SHA-256 {stored[:12]}…, but the sweep tagged {tagged[:12]}…: they were damaged or exchanged"
    return Gate("weights", False, words, forcible=False)


def reproduces(
    now: Mapping[str, float], logged: Mapping[str, float], objectives: Sequence[str], moved: str, tolerance: float
) -> Gate:
    """Whether the stored weights, measured here, give the logged values: every metric bit for bit, or the objectives
    within the tolerance where this machine is of another kind (`moved` says how, "" for the same kind)."""
    apart = {key: abs(value - logged[key]) for key, value in now.items() if key in logged and value != logged[key]}
    compared = sum(key in logged for key in now)
    if not apart:
        return Gate("reproduces", compared > 0, f"all {compared} metrics are the logged ones, bit for bit")
    unknown = [key for key in objectives if key not in logged or not math.isfinite(now.get(key, math.nan))]
    if unknown:
        return Gate("reproduces", False, f"{', '.join(unknown)} cannot be measured here, or was not logged")
    relative = {key: apart.get(key, 0.0) / max(abs(logged[key]), 1e-12) for key in objectives}
    worst = max(relative, key=lambda key: relative[key])
    if not moved:
        worst = max(apart, key=lambda key: apart[key] / max(abs(logged[key]), 1e-12))
    numbers = f"{worst} {now[worst]:.6g} here, {logged[worst]:.6g} logged"
    if not moved:
        return Gate(
            "reproduces", False, f"{len(apart)} of {compared} metrics differ on the same kind of machine; {numbers}"
        )
    within = relative[worst] <= tolerance
    words = f"{numbers}: {relative[worst]:.2%} apart, at most {tolerance:.2%} ({moved})"
    return Gate("reproduces", within, words)


def baseline(values: Mapping[str, float], objectives: Sequence[str], scales: Scales, share: float | None) -> Gate:
    """Whether it beats trivial pictures in pixel MSE, and in the distance of samples if that is an objective."""
    if share is None:
        return Gate("baseline", True, "not asked for (promote.baseline: null)")
    scores = {PIXEL_MSE: values[PIXEL_MSE] / scales.trivial_mse}
    if scales.distance in objectives:
        scores[scales.distance] = scales.scores(values)[1]
    words = ", ".join(f"{name} {score:.0%} of what trivial pictures score" for name, score in scores.items())
    return Gate("baseline", all(score < share for score in scores.values()), f"{words}; must be below {share:.0%}")


def confirmed(confirmation: Confirmation | None, wanted: int, why_not: str, *, pending: bool = False) -> Gate:
    """Whether enough fresh seeds completed and none was lost; `why_not` says why none are trained now, `pending` that a
    promotion would train them."""
    if wanted == 0:
        return Gate("confirmed", True, "not asked for (promote.seeds: 0)")
    if confirmation is None or confirmation.ended < wanted:
        have = 0 if confirmation is None else confirmation.ended
        return Gate("confirmed", False, f"{have} of {wanted} fresh seeds; {why_not}", run=False, pending=pending)
    return Gate("confirmed", not confirmation.lost, confirmation.in_words())


# --- Against the holder -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """An objective of one trial: the mean over `count` fresh seeds, or a single value."""

    mean: float
    error: float | None
    """Standard error of the mean; None for a single value."""
    count: int = 1

    @classmethod
    def of(cls, trial: TrialRun, objective: str) -> Estimate:
        """What is known of a trial's objective."""
        confirmation = trial.confirmation
        if confirmation is None or objective not in confirmation.mean:
            return cls(trial.final[objective], None)
        count = confirmation.completed
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1))
        return cls(confirmation.mean[objective], confirmation.half_width[objective] / quantile, count)


def margin(one: Estimate, other: Estimate) -> float:
    """How far two means must be apart to differ by more than noise (Welch's t, two-sided 95 %).

    Where one is a single value, the other's spread counts for it too; 0 where both are.
    """
    known = [each for each in (one, other) if each.error is not None]
    if not known:
        return 0.0
    squares = [(each.error or 0.0) ** 2 for each in known]
    if len(known) == 1:
        return _quantile(known[0].count - 1) * math.sqrt(squares[0] * (1 + known[0].count))
    total = sum(squares)
    if total == 0:
        return 0.0
    freedom = total**2 / sum(square**2 / (each.count - 1) for square, each in zip(squares, known, strict=True))
    return _quantile(freedom) * math.sqrt(total)


def _quantile(freedom: float) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))


def holder(candidate: TrialRun, present: TrialRun, objectives: Sequence[str], rule: str, version: str) -> Gate:
    """Whether it is better than the trial behind the present holder: by more than noise on one objective at least, and
    on none worse by more than noise."""
    better, worse, words = [], [], []
    for name in objectives:
        ours, theirs = Estimate.of(candidate, name), Estimate.of(present, name)
        noise, gain = margin(ours, theirs), theirs.mean - ours.mean
        better += [name] if gain > noise else []
        worse += [name] if gain < -noise else []
        single = ours.error is None and theirs.error is None
        sure = "one seed each, so the noise is not known" if single else f"noise ± {noise:.2g}"
        words.append(f"{name} {ours.mean:.4g} against {theirs.mean:.4g} ({sure})")
    passed = not worse and (bool(better) or rule == "not_worse")
    verdict = "better than" if better else "worse than" if worse else "no more than noise from"
    if worse and better:
        verdict = f"better on {', '.join(better)}, worse on {', '.join(worse)} than"
    return Gate("holder", passed, f"{verdict} version {version}: {'; '.join(words)}")


def incomparable(why: str, version: str) -> Gate:
    """The gate for a holder that nothing can be said about: a person decides."""
    return Gate(
        "holder", False, f"version {version} cannot be compared: {why}; --force replaces it all the same", run=False
    )


def holder_not_asked(rule: PromoteConfig, version: str | None) -> Gate | None:
    """The gate where there is nothing to compare with, or the sweep asks for nothing; None where there is."""
    if version is None:
        return Gate("holder", True, "no version has the alias yet")
    if rule.holder == "any":
        return Gate("holder", True, f"version {version}; not asked for (promote.holder: any)")
    return None
