"""One self-contained HTML page about a sweep, from its MLflow runs alone."""

from __future__ import annotations

import base64
import datetime
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup
from mlflow import MlflowClient
from plotly.offline import get_plotlyjs

from search.names import STEP, Outcome, Tag, point_of
from search.report.figures import TRAINING_CURVES, VALIDATION_CURVES, curve_figure, front_figure, to_html
from search.report.gaps import gaps_in_words
from search.tracking.reader import SweepRun, TrialRun, find_sweep, image_paths, read_artifact
from vaegan_core.evaluation import FITTED_SAMPLES, METRICS, PRIOR_SAMPLES, RECONSTRUCTIONS
from vaegan_core.metrics.diagnoses import (
    DISCRIMINATOR_SATURATED,
    FEATURE_AMPLIFICATION,
    KL_EXPLOSION,
    LATENT_DRIFT,
    MODE_COLLAPSE,
    POSTERIOR_COLLAPSE,
    PRIOR_SAMPLES_IGNORED,
)
from vaegan_core.tensor_files import write_atomically

DIAGNOSES = {
    KL_EXPLOSION: "the KL keeps growing, beyond half a nat per latent dimension and beyond its target",
    DISCRIMINATOR_SATURATED: "D tells real frames from reconstructions or from prior samples almost without error",
    PRIOR_SAMPLES_IGNORED: "prior samples stay bad while reconstructions are good; they hardly reach the decoder",
    FEATURE_AMPLIFICATION: "the same pixel error counts three times as much in the feature loss as it once did",
    LATENT_DRIFT: "the latents lie away from the prior: their mean is off the origin, or their radius too large",
    POSTERIOR_COLLAPSE: "the latents carry next to nothing of the image",
    MODE_COLLAPSE: "prior samples look alike, much more so than real frames",
}
CURVES_SHOWN = 6
IMAGES_SHOWN = 4
GRIDS_PER_TRIAL = 3


@dataclass(frozen=True)
class Grid:
    """An image grid of the page."""

    caption: str
    data: str
    """PNG, base64."""


def write_report(client: MlflowClient, name: str, path: Path) -> None:
    """Writes the page of the newest sweep called `name`. Raises ValueError if there is no such sweep."""
    write_atomically(path, render(client, find_sweep(client, name)).encode())


def render(client: MlflowClient, sweep: SweepRun) -> str:
    """The whole page as HTML. Each trial adds only its validation curves and a table row to its size."""
    ordered = _ordered(sweep)
    shown = ordered[:CURVES_SHOWN]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["short"] = _short
    points = {trial.number: point_of(trial.tags.get(Tag.ORIGIN, "")) for trial in sweep.trials}
    started = client.get_run(sweep.run_id).info.start_time / 1000
    page: str = environment.get_template("page.html.j2").render(
        sweep=sweep,
        meanings={name: METRICS[name].meaning for name in sweep.objectives},
        started=datetime.datetime.fromtimestamp(started, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        outcomes=dict(Counter(trial.outcome for trial in sweep.trials)),
        best=ordered[0] if sweep.completed else None,
        gaps=gaps_in_words(ordered[0].number, ordered[0].final, sweep.baselines) if sweep.completed else [],
        ordered=ordered,
        steps={trial.number: int(trial.final.get(STEP, 0)) for trial in sweep.trials},
        parameters=_parameters(sweep),
        points=points,
        named=any(points.values()),
        shown=shown,
        diagnosed={trial.number: [name for name in DIAGNOSES if trial.tags.get(name) == "true"] for trial in ordered},
        diagnoses=DIAGNOSES,
        confirmed=any(trial.confirmed or not trial.feasible for trial in sweep.trials),
        plotly_js=Markup(get_plotlyjs()),
        front_figure=to_html(front_figure(sweep)),
        curve_figures=[
            *(to_html(curve_figure(client, key, ordered)) for key in VALIDATION_CURVES),
            *(to_html(curve_figure(client, key, shown)) for key in TRAINING_CURVES),
        ],
        images=[(trial, _grids(client, trial)) for trial in ordered[:IMAGES_SHOWN]],
    )
    return page


def _ordered(sweep: SweepRun) -> list[TrialRun]:
    """Completed trials by rank, then the others, those that passed most rungs first."""
    rest = [trial for trial in sweep.trials if trial.outcome != Outcome.COMPLETED]
    rest.sort(key=lambda trial: int(trial.tags.get(Tag.RUNG, -1)), reverse=True)
    return sweep.ranked + rest


def _parameters(sweep: SweepRun) -> list[str]:
    """Names of the searched parameters, those that most trials have first."""
    counts = Counter(name for trial in sweep.trials for name in trial.params)
    return sorted(counts, key=lambda name: (-counts[name], name))


def _short(value: str) -> str:
    try:
        return f"{float(value):.3g}"
    except ValueError:
        return value


def _grids(client: MlflowClient, trial: TrialRun) -> list[Grid]:
    """A few grids over the steps, first and last among them: reconstructions, fitted samples, prior samples."""
    paths = image_paths(client, trial.run_id)
    grids = []
    for key in (RECONSTRUCTIONS, FITTED_SAMPLES, PRIOR_SAMPLES):
        steps = sorted(step for name, step in paths if name == key)
        for step in _spread(steps, GRIDS_PER_TRIAL):
            png = read_artifact(client, trial.run_id, paths[(key, step)])
            grids.append(Grid(f"{key.replace('_', ' ')}, step {step}", base64.b64encode(png).decode()))
    return grids


def _spread(items: list[int], count: int) -> list[int]:
    """At most `count` items, evenly spread, first and last among them."""
    if len(items) <= count:
        return items
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]
