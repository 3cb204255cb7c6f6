"""The report's figures: the front of a sweep and curves of its trials."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from markupsafe import Markup
from mlflow import MlflowClient

from search.names import Outcome, Tag
from search.tracking.reader import SweepRun, TrialRun, read_curve
from vaegan_core.evaluation import DECODER_GAP, KL, LAYOUT_FD, PIXEL_MSE, PRIOR_GAP, SAMPLES_FD

VALIDATION_CURVES = (PIXEL_MSE, LAYOUT_FD, PRIOR_GAP, DECODER_GAP, SAMPLES_FD, KL)
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
COLORS = ("#1f6feb", "#d1570c", "#2f9e44", "#9c36b5", "#c92a2a", "#0b7285", "#5c4813", "#495057")


def front_figure(sweep: SweepRun) -> go.Figure:
    """Full-fidelity trials over the first two objectives; with a single objective, its values by rank."""
    figure = _figure("")
    if len(sweep.objectives) == 1:
        values = sorted(trial.final[sweep.objectives[0]] for trial in sweep.completed)
        figure.add_scatter(x=list(range(1, len(values) + 1)), y=values, mode="markers", marker_color=COLORS[0])
        figure.update_layout(xaxis_title="rank", yaxis_title=sweep.objectives[0])
        return figure
    x_name, y_name = sweep.objectives[:2]
    groups = {"on the front": "true", "beaten": "false"}
    for index, (label, on_front) in enumerate(groups.items()):
        trials = [trial for trial in sweep.completed if trial.tags.get(Tag.ON_FRONT, "false") == on_front]
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
    stopped = [trial for trial in sweep.trials if trial.outcome != Outcome.COMPLETED and x_name in trial.final]
    figure.add_scatter(
        x=[trial.final[x_name] for trial in stopped],
        y=[trial.final[y_name] for trial in stopped],
        text=[f"trial {trial.number}, {trial.outcome}" for trial in stopped],
        mode="markers",
        marker={"size": 7, "color": "#adb5bd", "symbol": "x"},
        name="ended earlier, at its last evaluation",
    )
    trivial = sweep.scales.trivial_mse
    figure.add_vline(x=trivial, line_dash="dash", line_color="#adb5bd", annotation_text=sweep.scales.trivial)
    figure.update_layout(xaxis_title=x_name, yaxis_title=y_name, height=420)
    return figure


def curve_figure(client: MlflowClient, key: str, trials: Sequence[TrialRun]) -> go.Figure:
    """One metric's curves; on a logarithmic axis if every value is positive."""
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
            line={"color": COLORS[index % len(COLORS)], "width": 2 if trial.outcome == Outcome.COMPLETED else 1},
            opacity=1.0 if trial.outcome == Outcome.COMPLETED else 0.5,
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


def to_html(figure: go.Figure) -> Markup:
    """An HTML fragment for a page that has plotly.js."""
    return Markup(figure.to_html(full_html=False, include_plotlyjs=False))
