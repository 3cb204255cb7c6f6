"""A run outside a sweep: of `vaegan train` and of `vaegan rerun`."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities import Metric

from search.tracking.images import log_png
from search.tracking.writer import POINTS_PER_BLOCK
from vaegan_core.evaluation import Evaluation


def log_evaluation(client: MlflowClient, run_id: str, evaluation: Evaluation) -> None:
    """Points and image grids of one Evaluation; repeating it changes nothing."""
    metrics = [Metric(p.key, p.value, p.time, p.step) for p in evaluation.points]
    for start in range(0, len(metrics), POINTS_PER_BLOCK):
        client.log_batch(run_id, metrics=metrics[start : start + POINTS_PER_BLOCK])
    now = max((point.time for point in evaluation.points), default=0)
    for key, png in evaluation.images.items():
        log_png(client, run_id, png, key, evaluation.step, now)
