"""MLflow runs: made, found, tagged and ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from vaegan_core.evaluation import METRICS

STATUS = {
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "diverged": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


def best_step(key: str, evaluations: Mapping[int, Mapping[str, float]]) -> int | None:
    """Step of the best value of a validation metric, the earliest of equals; None where no value is better."""
    better = METRICS[key].better if key in METRICS else None
    if better is None:
        return None
    values = {step: metrics[key] for step, metrics in evaluations.items() if key in metrics}
    return (min if better == "less" else max)(values, key=lambda step: values[step])


def diagnosis_tags(diagnoses: Mapping[str, bool | None]) -> dict[str, str]:
    """true or false by the diagnosis' name; what could not be told has no tag."""
    return {name: str(holds).lower() for name, holds in diagnoses.items() if holds is not None}


def search_all(client: MlflowClient, experiment_id: str, query: str) -> Iterator[Run]:
    """Every run that a query finds."""
    token = None
    while True:
        page = client.search_runs([experiment_id], query, ViewType.ACTIVE_ONLY, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def text_of(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
