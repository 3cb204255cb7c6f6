"""What the page's scripts draw: a sweep's trials as columns of JSON. Nothing in it is markup."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from optuna.distributions import BaseDistribution, CategoricalDistribution

from search.config.load import read_sweep
from search.config.space import Branch, Node
from search.config.sweep import Sweep
from search.names import STEP, Artifact, Outcome, Tag, point_of
from search.report.findings import Findings
from search.standings.scales import Scales
from search.tracking.reader import SweepRun, TrialRun, read_artifact
from vaegan_core.evaluation import METRICS, PIXEL_MSE
from vaegan_core.metrics.diagnoses import (
    DISCRIMINATOR_SATURATED,
    FEATURE_AMPLIFICATION,
    KL_EXPLOSION,
    LATENT_DRIFT,
    MODE_COLLAPSE,
    POSTERIOR_COLLAPSE,
    PRIOR_SAMPLES_IGNORED,
)

DIAGNOSES = {
    KL_EXPLOSION: "the KL keeps growing, beyond half a nat per latent dimension and beyond its target",
    DISCRIMINATOR_SATURATED: "D tells real frames from reconstructions or from prior samples almost without error",
    PRIOR_SAMPLES_IGNORED: "prior samples stay bad while reconstructions are good; they hardly reach the decoder",
    FEATURE_AMPLIFICATION: "the same pixel error counts three times as much in the feature loss as it once did",
    LATENT_DRIFT: "the latents lie away from the prior: their mean is off the origin, or their radius too large",
    POSTERIOR_COLLAPSE: "the latents carry next to nothing of the image",
    MODE_COLLAPSE: "prior samples look alike, much more so than real frames",
}
DIGITS = 5
"""Significant digits of a number on the page."""
WIDE = 100.0
"""Ratio of the largest to the smallest value of a parameter from which its axis is logarithmic, where the space cannot
be read."""

CurveOf = Callable[[int, str], Sequence[tuple[int, float]]]
"""(step, value) of every evaluation of a trial, by its number and the metric's key."""


@dataclass(frozen=True)
class Reported:
    """A sweep with what is said of it."""

    sweep: SweepRun
    findings: Findings
    curve: CurveOf
    declared: Sweep | None
    """What its sweep.yaml says; None where this version cannot read it."""

    @property
    def ordered(self) -> list[TrialRun]:
        """Completed trials by rank, then the others, those that passed most rungs first."""
        rest = [trial for trial in self.sweep.trials if trial.outcome != Outcome.COMPLETED]
        rest.sort(key=lambda trial: int(trial.tags.get(Tag.RUNG, -1)), reverse=True)
        return self.sweep.ranked + rest

    @property
    def scales(self) -> Scales | None:
        """None before the sweep has measured its baselines."""
        try:
            return self.sweep.scales
        except (IndexError, ValueError):
            return None


def read_declared(client: MlflowClient, sweep: SweepRun) -> Sweep | None:
    """The sweep as its YAML has it; None where it has none or one of another version."""
    try:
        return read_sweep(read_artifact(client, sweep.run_id, Artifact.SWEEP).decode(), sweep.name)
    except ValueError:
        return None


def short(value: float | None) -> float | None:
    """A number with as many digits as the page needs; None if it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    number = float(f"{value:.{DIGITS}g}")
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def diagnosed(trial: TrialRun) -> list[str]:
    return [name for name in DIAGNOSES if trial.tags.get(name) == "true"]


def on_front(trial: TrialRun) -> bool:
    return trial.outcome == Outcome.COMPLETED and trial.tags.get(Tag.ON_FRONT) == "true"


def run_base(client: MlflowClient, sweep: SweepRun) -> str:
    """Address of MLflow's page of a run, up to the run's id; "" where the store is no server."""
    scheme, _, rest = client.tracking_uri.partition("://")
    if scheme not in ("http", "https"):
        return ""
    place = rest.rpartition("@")[2].rstrip("/")
    return f"{scheme}://{place}/#/experiments/{sweep.experiment_id}/runs/"


def data_of(client: MlflowClient, reported: Reported) -> dict[str, Any]:
    """Everything but curves and pictures. Columns have one entry per trial, best trial first."""
    sweep, ordered = reported.sweep, reported.ordered
    confirmations = {
        index: trial.confirmation.in_words() for index, trial in enumerate(ordered) if trial.confirmation is not None
    }
    return {
        "name": sweep.name,
        "runs": run_base(client, sweep),
        "objectives": list(sweep.objectives),
        "recommended": reported.findings.recommended,
        "rungs": list(reported.declared.rungs) if reported.declared else [],
        "number": [trial.number for trial in ordered],
        "run": [trial.run_id for trial in ordered],
        "outcome": _coded([trial.outcome for trial in ordered]),
        "point": _coded([point_of(trial.tags.get(Tag.ORIGIN, "")) for trial in ordered]),
        "reason": _coded([trial.tags.get(Tag.REASON, "") for trial in ordered]),
        "diagnoses": _coded([", ".join(diagnosed(trial)) for trial in ordered]),
        "front": [int(on_front(trial)) for trial in ordered],
        "infeasible": [index for index, trial in enumerate(ordered) if not trial.feasible],
        "confirmed": confirmations,
        "step": [short(trial.final.get(STEP)) for trial in ordered],
        "metrics": _metrics(ordered),
        "parameters": list(_parameters(reported)),
        "trivial": _trivial(reported.scales),
    }


def _coded(texts: Sequence[str]) -> dict[str, Any]:
    """Texts that often repeat: each once, and which one at each place."""
    words = {text: index for index, text in enumerate(dict.fromkeys(texts))}
    return {"words": list(words), "at": [words[text] for text in texts]}


def _metrics(ordered: Sequence[TrialRun]) -> list[dict[str, Any]]:
    finals = [trial.final for trial in ordered]
    known = dict.fromkeys(key for final in finals for key in final if key != STEP)
    keys = [key for key in METRICS if key in known] + [key for key in known if key not in METRICS]
    return [
        {
            "key": key,
            "meaning": METRICS[key].meaning if key in METRICS else "",
            "better": METRICS[key].better if key in METRICS else None,
            "values": [short(final.get(key)) for final in finals],
        }
        for key in keys
    ]


def _trivial(scales: Scales | None) -> dict[str, dict[str, Any]]:
    """What a trivial model scores, by objective, and who that is."""
    if scales is None:
        return {}
    return {
        PIXEL_MSE: {"value": short(scales.trivial_mse), "name": scales.trivial},
        scales.distance: {"value": short(scales.mean_color), "name": "mean color"},
    }


def _parameters(reported: Reported) -> Iterator[dict[str, Any]]:
    """The searched parameters, those that most trials have first; the most important ones before them."""
    declared = reported.declared
    distributions = declared.space.parameters() if declared else {}
    conditions = _conditions(declared.space.nodes if declared else ())
    ordered = reported.ordered
    counts: dict[str, int] = dict.fromkeys(distributions, 0)
    for trial in ordered:
        for name in trial.params:
            counts[name] = counts.get(name, 0) + 1
    told = {item.parameter: item.share for item in reported.findings.importances if item.told}
    for name in sorted(counts, key=lambda name: (-told.get(name, 0.0), -counts[name], name)):
        texts = [trial.params.get(name) for trial in ordered]
        yield {"key": name, "only": conditions.get(name, ""), **_axis(texts, distributions.get(name))}


def _conditions(nodes: Sequence[Node], inside: str = "") -> dict[str, str]:
    """In which branch a parameter exists; "" in all of them."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        found.setdefault(node.name, []).append(inside)
        for option, inner in node.options.items() if isinstance(node, Branch) else ():
            for name, where in _conditions(inner, f"{node.name} = {option}").items():
                found.setdefault(name, []).append(where)
    return {name: " or ".join(dict.fromkeys(where)) for name, where in found.items()}


def _axis(texts: Sequence[str | None], distribution: BaseDistribution | None) -> dict[str, Any]:
    """A parameter's values, and the axis they lie on: numbers between bounds, or choices by place."""
    numbers = [_number(text) for text in texts]
    is_number = all(number is not None for number, text in zip(numbers, texts, strict=True) if text is not None)
    if isinstance(distribution, CategoricalDistribution) or not is_number:
        choices = [_text(choice) for choice in getattr(distribution, "choices", ())]
        places = {text: place for place, text in enumerate(dict.fromkeys([*choices, *filter(None, texts)]))}
        return {"choices": list(places), "values": [places.get(text) if text else None for text in texts]}
    known = [number for number in numbers if number is not None]
    low = getattr(distribution, "low", min(known, default=0.0))
    high = getattr(distribution, "high", max(known, default=1.0))
    log = getattr(distribution, "log", bool(known) and low > 0 and high / low > WIDE)
    return {"low": short(low), "high": short(high), "log": log, "values": [short(number) for number in numbers]}


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _text(value: object) -> str:
    """A choice as MLflow stores it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def failures(trials: Sequence[TrialRun], shown: int = 20) -> list[dict[str, Any]]:
    """Reasons why trials ended other than by completing or by early stopping, the most frequent first.

    Reasons that differ in numbers alone count as one, shown as its first trial has it.
    """
    groups: dict[tuple[str, str], list[TrialRun]] = {}
    quiet = (Outcome.COMPLETED, Outcome.PRUNED, Outcome.RUNNING)
    for trial in trials:
        if trial.outcome not in quiet:
            reason = trial.tags.get(Tag.REASON, "")
            groups.setdefault((trial.outcome, _without_numbers(reason)), []).append(trial)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [
        {
            "outcome": outcome,
            "count": len(group),
            "trials": [trial.number for trial in group[:8]],
            "reason": group[0].tags.get(Tag.REASON, "") or "no reason was recorded",
        }
        for (outcome, _), group in ordered[:shown]
    ]


def _without_numbers(text: str) -> str:
    return "".join("#" if character.isdigit() else character for character in text)


def counted_diagnoses(trials: Sequence[TrialRun]) -> list[dict[str, Any]]:
    """Each diagnosis, what it means, and which trials have it."""
    found: Mapping[str, list[int]] = {name: [t.number for t in trials if name in diagnosed(t)] for name in DIAGNOSES}
    return [{"name": name, "meaning": DIAGNOSES[name], "trials": numbers} for name, numbers in found.items()]
