"""The way to MLflow: a client on any tracking URI, whether one can write there, and what its errors mean."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment

from search.paths import SQLITE

CALL_SECONDS = 10
"""After which a call to a server counts as failed."""
UPLOAD_SECONDS = 60
"""The same for a file, which may be large."""

logging.getLogger("mlflow").setLevel(logging.ERROR)
logging.getLogger("alembic").setLevel(logging.WARNING)


def open_client(uri: str) -> MlflowClient:
    """A client on `uri`; a SQLite file's directory is made when missing, so that its first use creates the store."""
    if uri.startswith(SQLITE):
        Path(uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    for name, value in (
        ("HTTP_REQUEST_MAX_RETRIES", "2"),
        ("HTTP_REQUEST_TIMEOUT", str(CALL_SECONDS)),
        ("ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", str(UPLOAD_SECONDS)),
        ("ENABLE_ARTIFACTS_PROGRESS_BAR", "false"),
        ("SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
    ):
        os.environ.setdefault(f"MLFLOW_{name}", value)
    return MlflowClient(uri)


def open_existing(uri: str) -> MlflowClient:
    """A client to read from. Raises ValueError where no sweep or training has written anything yet."""
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        raise ValueError(f"there are no runs at {uri}; go where the sweep ran, or set MLFLOW_TRACKING_URI")
    return open_client(uri)


def ensure_experiment(client: MlflowClient, uri: str, name: str) -> str:
    """Id of the experiment, made on first use. On SQLite its artifacts lie beside the database."""
    experiment: Experiment | None = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    location = None
    if uri.startswith(SQLITE):
        location = (Path(uri.removeprefix(SQLITE)).resolve().parent / "artifacts" / name).as_uri()
    kind = {"mlflow.experimentKind": "custom_model_development"}  # the web pages then open on runs, not on chats
    return str(client.create_experiment(name, artifact_location=location, tags=kind))


# --- What an error means ----------------------------------------------------------------------------------------------
