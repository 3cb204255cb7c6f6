"""Curves of the report: validation curves of as many trials as fit, training curves of a few."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from search.report.page_data import short
from search.report.pictures import THREADS, spread, worth_showing
from search.report.reported import Reported
from search.tracking.reader import read_curve
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
CHOSEN = 6
"""Trials whose curves are shown at first; training curves are read for these alone."""
POINTS = 120_000
"""Points of all validation curves of a page, about 15 bytes each."""
POINTS_OF_A_CURVE = 240

Curve = tuple[list[int], list[float | None]]
"""Steps and values."""


def curves_of(client: MlflowClient, reported: Reported, points: int = POINTS) -> dict[str, Any]:
    """Keys in their order, and curves by trial number and key."""
    objectives = reported.sweep.objectives
    keys = tuple(dict.fromkeys((*objectives, *VALIDATION_CURVES)))
    curves: dict[int, dict[str, Curve]] = {}
    for trial in worth_showing(reported, len(reported.sweep.trials)):
        found = {key: _thinned(reported.evaluations.curve(trial.number, key)) for key in keys}
        kept = {key: curve for key, curve in found.items() if curve[0]}
        points -= sum(len(steps) for steps, _ in kept.values())
        if points < 0:
            break
        curves[trial.number] = kept
    defaults = [trial.number for trial in reported.ordered[:CHOSEN]]
    for (number, key), curve in _training(client, reported).items():
        curves.setdefault(number, {})[key] = curve
    present = {key for of_trial in curves.values() for key in of_trial}
    return {
        "keys": [key for key in (*keys, *TRAINING_CURVES) if key in present],
        "chosen": defaults,
        "trials": curves,
    }


def _training(client: MlflowClient, reported: Reported) -> dict[tuple[int, str], Curve]:
    """Training curves of the first trials, one request each, in parallel."""
    wanted = [(trial, key) for trial in reported.ordered[:CHOSEN] for key in TRAINING_CURVES if key in trial.metrics]

    def read(item: tuple[Any, str]) -> Curve:
        trial, key = item
        try:
            return _thinned([(point.step, point.value) for point in read_curve(client, trial.run_id, key)])
        except MlflowException:
            return [], []

    with ThreadPoolExecutor(THREADS) as threads:
        return {
            (trial.number, key): curve for (trial, key), curve in zip(wanted, threads.map(read, wanted), strict=True)
        }


def _thinned(points: Sequence[tuple[int, float]]) -> Curve:
    kept = spread(points, POINTS_OF_A_CURVE)
    return [step for step, _ in kept], [short(value) for _, value in kept]
