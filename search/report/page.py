"""One self-contained HTML page about a sweep, from its MLflow runs alone."""

from __future__ import annotations

import base64
import datetime
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from mlflow import MlflowClient
from plotly.offline import get_plotlyjs

from search import names
from search.standings.pareto import hypervolume
from search.tracking.reader import SweepRun, TrialRun, find_sweep, image_paths, read_artifact, read_curve
from vaegan_core.evaluation import KL, PIXEL_MSE, PRIOR_SAMPLES, RECONSTRUCTIONS, SAMPLES_FD
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

VALIDATION_CURVES = (PIXEL_MSE, SAMPLES_FD, KL)
TRAINING_CURVES = (
    "train/kl",
    "train/feature_recon",
    "train/discriminator_real",
    "train/discriminator_recon",
    "train/discriminator_prior",
    "train/generator_recon",
    "train/generator_prior",
    "train/pixel",
    "gradient/decoder/generator_recon",
    "gradient/decoder/generator_prior",
)
DIAGNOSES = {
    KL_EXPLOSION: "the KL keeps growing, beyond half a nat per latent dimension and beyond its target",
    DISCRIMINATOR_SATURATED: "D tells real frames from reconstructions or from prior samples almost without error",
    PRIOR_SAMPLES_IGNORED: "prior samples stay bad while reconstructions are good; the decoder hardly hears of them",
    FEATURE_AMPLIFICATION: "the same pixel error counts for three times as much in the feature loss as it once did",
    LATENT_DRIFT: "the latents lie away from the prior: their mean off the origin, or their radius too large",
    POSTERIOR_COLLAPSE: "the latents carry next to nothing of the image",
    MODE_COLLAPSE: "prior samples look alike, much more so than real frames",
}
CURVES_SHOWN = 6
IMAGES_SHOWN = 4
GRIDS_PER_TRIAL = 3
COLORS = ("#1f6feb", "#d1570c", "#2f9e44", "#9c36b5", "#c92a2a", "#0b7285", "#5c4813", "#495057")


@dataclass(frozen=True)
class Grid:
    caption: str
    data: str
    """PNG, base64."""


def write_report(client: MlflowClient, name: str, path: Path) -> None:
    """Writes the page of the newest sweep called `name`. Raises ValueError when there is none."""
    write_atomically(path, render(client, find_sweep(client, name)).encode())


def render(client: MlflowClient, sweep: SweepRun) -> str:
    """The whole page. Its size grows with the number of trials only by the validation curves and a table row."""
    ordered = _ordered(sweep)
    shown = ordered[:CURVES_SHOWN]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["short"] = _short
    scores = [sweep.scales.scores(trial.final) for trial in sweep.completed if trial.feasible]
    started = client.get_run(sweep.run_id).info.start_time / 1000
    page: str = environment.get_template("report.html.j2").render(
        sweep=sweep,
        started=datetime.datetime.fromtimestamp(started, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        outcomes=dict(Counter(trial.outcome for trial in sweep.trials)),
        best=ordered[0] if sweep.completed else None,
        best_s1=sweep.scales.scores(ordered[0].final)[0] if sweep.completed else math.nan,
        hypervolume=hypervolume(scores),
        ordered=ordered,
        steps={trial.number: int(trial.final.get(names.STEP, 0)) for trial in sweep.trials},
        parameters=_parameters(sweep),
        shown=shown,
        diagnosed={trial.number: [name for name in DIAGNOSES if trial.tags.get(name) == "true"] for trial in ordered},
        diagnoses=DIAGNOSES,
        confirmed=any(trial.confirmed or not trial.feasible for trial in sweep.trials),
        plotly_js=Markup(get_plotlyjs()),
        front_figure=_html(_front_figure(sweep)),
        curve_figures=[
            *(_html(_curve_figure(client, key, ordered)) for key in VALIDATION_CURVES),
            *(_html(_curve_figure(client, key, shown)) for key in TRAINING_CURVES),
        ],
        images=[(trial, _grids(client, trial)) for trial in ordered[:IMAGES_SHOWN]],
    )
    return page


def _ordered(sweep: SweepRun) -> list[TrialRun]:
    """Completed trials by rank, then the others by how far they came."""
    rest = [trial for trial in sweep.trials if trial.outcome != "completed"]
    rest.sort(key=lambda trial: int(trial.tags.get(names.RUNG_TAG, -1)), reverse=True)
    return sweep.ranked + rest


def _parameters(sweep: SweepRun) -> list[str]:
    """Swept parameters, those that most trials have first."""
    counts = Counter(name for trial in sweep.trials for name in trial.params)
    return sorted(counts, key=lambda name: (-counts[name], name))


def _short(value: str) -> str:
    try:
        return f"{float(value):.3g}"
    except ValueError:
        return value


def _front_figure(sweep: SweepRun) -> go.Figure:
    """Full-fidelity trials over the two objectives, or over their rank when there is one."""
    figure = _figure("")
    if len(sweep.objectives) == 1:
        values = sorted(trial.final[sweep.objectives[0]] for trial in sweep.completed)
        figure.add_scatter(x=list(range(1, len(values) + 1)), y=values, mode="markers", marker_color=COLORS[0])
        figure.update_layout(xaxis_title="rank", yaxis_title=sweep.objectives[0])
        return figure
    x_name, y_name = sweep.objectives[:2]
    groups = {"on the front": "true", "beaten": "false"}
    for index, (label, on_front) in enumerate(groups.items()):
        trials = [trial for trial in sweep.completed if trial.tags.get(names.ON_FRONT_TAG, "false") == on_front]
        trials.sort(key=lambda trial: trial.final[x_name])
        figure.add_scatter(
            x=[trial.final[x_name] for trial in trials],
            y=[trial.final[y_name] for trial in trials],
            text=[f"trial {trial.number}" for trial in trials],
            mode="lines+markers" if on_front == "true" else "markers",
            line={"shape": "hv", "dash": "dot"},
            marker={"size": 10, "color": COLORS[index]},
            name=label,
        )
    stopped = [trial for trial in sweep.trials if trial.outcome != "completed" and x_name in trial.final]
    figure.add_scatter(
        x=[trial.final[x_name] for trial in stopped],
        y=[trial.final[y_name] for trial in stopped],
        text=[f"trial {trial.number}, {trial.outcome}" for trial in stopped],
        mode="markers",
        marker={"size": 7, "color": "#adb5bd", "symbol": "x"},
        name="ended earlier, at its last evaluation",
    )
    trivial = sweep.scales.mean_color_mse
    figure.add_vline(x=trivial, line_dash="dash", line_color="#adb5bd", annotation_text="mean colour")
    figure.update_layout(xaxis_title=x_name, yaxis_title=y_name, height=420)
    return figure


def _curve_figure(client: MlflowClient, key: str, trials: Sequence[TrialRun]) -> go.Figure:
    figure = _figure(key)
    positive = True
    for index, trial in enumerate(trials):
        curve = read_curve(client, trial.run_id, key)
        positive = positive and all(point.value > 0 for point in curve)
        figure.add_scatter(
            x=[point.step for point in curve],
            y=[point.value for point in curve],
            name=f"trial {trial.number}",
            mode="lines",
            line={"color": COLORS[index % len(COLORS)], "width": 2 if trial.outcome == "completed" else 1},
            opacity=1.0 if trial.outcome == "completed" else 0.5,
        )
    figure.update_layout(xaxis_title="step", yaxis_type="log" if positive else "linear")
    return figure


def _figure(title: str) -> go.Figure:
    return go.Figure(
        layout={
            "template": "plotly_white",
            "title": title,
            "height": 320,
            "margin": {"l": 60, "r": 20, "t": 40 if title else 16, "b": 44},
        }
    )


def _html(figure: go.Figure) -> Markup:
    return Markup(figure.to_html(full_html=False, include_plotlyjs=False))


def _grids(client: MlflowClient, trial: TrialRun) -> list[Grid]:
    """A few grids over steps, the last always among them: reconstructions, then prior samples."""
    paths = image_paths(client, trial.run_id)
    grids = []
    for key in (RECONSTRUCTIONS, PRIOR_SAMPLES):
        steps = sorted(step for found, step in paths if found == key)
        for step in _spread(steps, GRIDS_PER_TRIAL):
            png = read_artifact(client, trial.run_id, paths[(key, step)])
            grids.append(Grid(f"{key.replace('_', ' ')}, step {step}", base64.b64encode(png).decode()))
    return grids


def _spread(items: list[int], count: int) -> list[int]:
    """At most `count` of the items, evenly spread, first and last among them."""
    if len(items) <= count:
        return items
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]
