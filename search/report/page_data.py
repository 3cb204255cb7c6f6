"""What the page's scripts draw: a sweep's trials as columns of JSON. Nothing in it is markup."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from mlflow import MlflowClient

from search.config.space import Branch, Node
from search.names import STEP, TRAINING_VIEW, Outcome, Tag, point_of
from search.report.health import without_numbers
from search.report.reported import DIAGNOSES, Reported, diagnosed, on_front
from search.report.searched import Searched, searched
from search.standings.scales import Scales
from search.tracking.reader import SweepRun, TrialRun
from vaegan_core.evaluation import METRICS, PIXEL_MSE

DIGITS = 5
"""Significant digits of a number on the page that is not whole."""


def short(value: float | None) -> float | None:
    """A number with as many digits as the page needs, a whole one with all of them; None if it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    number = value if float(value).is_integer() else float(f"{value:.{DIGITS}g}")
    return int(number) if float(number).is_integer() and abs(number) < 1e15 else number


def run_address(client: MlflowClient, sweep: SweepRun) -> str:
    """Address of MLflow's page of a run, with RUN in place of its id; "" where the store is no server."""
    server = urlsplit(client.tracking_uri)
    if server.scheme not in ("http", "https"):
        return ""
    place = f"{server.scheme}://{server.netloc.rpartition('@')[2]}{server.path.rstrip('/')}"
    return f"{place}/#/experiments/{sweep.experiment_id}/runs/RUN{TRAINING_VIEW}"


def data_of(client: MlflowClient, reported: Reported) -> dict[str, Any]:
    """Everything but curves and pictures. Columns have one entry per trial, best trial first."""
    sweep, ordered = reported.sweep, reported.ordered
    confirmations = {
        index: trial.confirmation.in_words() for index, trial in enumerate(ordered) if trial.confirmation is not None
    }
    return {
        "name": sweep.name,
        "runs": run_address(client, sweep),
        "objectives": list(sweep.objectives),
        "recommended": reported.findings.recommended,
        "asks_only": reported.asks_only,
        "rungs": list(reported.plan.rungs) if reported.plan else [],
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
    """The searched parameters, the most important ones first; those of one branch are beside each other."""
    conditions = _conditions(reported.plan.space.nodes if reported.plan else ())
    numbers = [trial.number for trial in reported.ordered]
    told = {item.parameter: item.share for item in reported.findings.importances if item.told}

    def place(each: Searched) -> tuple[float, str, int, str]:
        return -told.get(each.name, 0.0), conditions.get(each.name, ""), -len(each.values), each.name

    for each in sorted(searched(reported.sweep, reported.plan), key=place):
        yield {"key": each.name, "only": conditions.get(each.name, ""), **axis(each, numbers)}


def _conditions(nodes: Sequence[Node], inside: str = "") -> dict[str, str]:
    """In which branch a parameter exists; "" in all of them."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        found.setdefault(node.name, []).append(inside)
        for option, inner in node.options.items() if isinstance(node, Branch) else ():
            for name, where in _conditions(inner, f"{node.name} = {option}").items():
                found.setdefault(name, []).append(where)
    return {name: " or ".join(dict.fromkeys(where)) for name, where in found.items()}


def axis(parameter: Searched, numbers: Sequence[int]) -> dict[str, Any]:
    """A parameter's values, and the axis they lie on: numbers between bounds, or choices by place."""
    values = [short(parameter.values.get(number)) for number in numbers]
    if parameter.choices:
        return {"choices": list(parameter.choices), "values": values}
    return {"low": short(parameter.low), "high": short(parameter.high), "log": parameter.log, "values": values}


def failures(trials: Sequence[TrialRun], shown: int = 20) -> list[dict[str, Any]]:
    """Reasons why trials ended other than by completing or by early stopping, the most frequent first.

    Reasons that differ in numbers alone count as one, shown as its first trial has it.
    """
    groups: dict[tuple[str, str], list[TrialRun]] = {}
    quiet = (Outcome.COMPLETED, Outcome.PRUNED, Outcome.RUNNING)
    for trial in trials:
        if trial.outcome not in quiet:
            reason = trial.tags.get(Tag.REASON, "")
            groups.setdefault((trial.outcome, without_numbers(reason)), []).append(trial)
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


def counted_diagnoses(trials: Sequence[TrialRun]) -> list[dict[str, Any]]:
    """Each diagnosis, what it means, and which trials have it."""
    found: Mapping[str, list[int]] = {name: [t.number for t in trials if name in diagnosed(t)] for name in DIAGNOSES}
    return [{"name": name, "meaning": DIAGNOSES[name], "trials": numbers} for name, numbers in found.items()]
