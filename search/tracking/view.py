"""A view of MLflow's run table that shows a sweep: its trials, best first, objectives and parameters as columns."""

from __future__ import annotations

import base64
import json
import zlib

from search.config.sweep import Sweep
from search.names import TRAINING_VIEW, Kind, Prefix, Tag

VIEW_TAG = "mlflow.sharedViewState."
"""Begins the experiment's tag that keeps a view which MLflow 3.17's pages open by its key."""
PARAMETERS_SHOWN = 8


def state_of(sweep: Sweep) -> str:
    """The view as MLflow's pages write it."""
    objectives = [f"metrics.`{Prefix.FINAL}{name}`" for name in sweep.config.objectives]
    parameters = [f"params.`{name}`" for name in sweep.space.parameters()][:PARAMETERS_SHOWN]
    state = {
        "searchFilter": f'tags.{Tag.SWEEP_NAME} = "{sweep.config.name}" and tags.`{Tag.KIND}` = "{Kind.TRIAL}"',
        "orderByKey": objectives[0],
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [*objectives, *parameters, f"tags.`{Tag.OUTCOME}`", f"tags.`{Tag.ON_FRONT}`"],
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
    }
    return f"deflate;{base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()}"


def page_of_view(experiment_id: str, key: str) -> str:
    """Address of the view among MLflow's pages."""
    return f"#/experiments/{experiment_id}/runs{TRAINING_VIEW}&viewStateShareKey={key}"
