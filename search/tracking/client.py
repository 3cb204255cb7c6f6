"""The way to MLflow: a client on any tracking URI, whether one can write there, and what its errors mean."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage
from mlflow.exceptions import MlflowException

from search.redaction import redact

CALL_SECONDS = 10
"""After which a call to a server counts as failed."""
UPLOAD_SECONDS = 60
"""The same for a file, which may be large."""
REFUSALS = (400, 413)
"""Statuses of a request that the same server will never accept."""
MISSING = "RESOURCE_DOES_NOT_EXIST"
SQLITE = "sqlite:///"

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


def check_storage(directory: Path) -> None:
    """Raises ValueError when no file can be made below `directory`."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.is_dir())
    try:
        with TemporaryDirectory(dir=existing, prefix=".vaegan-check-") as scratch:
            (Path(scratch) / "file").write_bytes(b"x")
    except OSError as error:
        raise ValueError(f"sweeps go to {directory}, but nothing can be written there: {error.strerror}") from None


def check_tracking(uri: str, experiment: str) -> None:
    """Raises ValueError when MLflow at `uri` cannot be reached, its SQLite file not be written, or the experiment was
    deleted."""
    if uri.startswith(SQLITE):
        path = Path(uri.removeprefix(SQLITE))
        if path.exists() and not os.access(path, os.W_OK):
            raise ValueError(f"tracking goes to {path}, but that file cannot be written")
        check_storage(path.absolute().parent)
        if not path.exists():
            return
    try:
        found: Experiment | None = open_client(uri).get_experiment_by_name(experiment)
    except Exception as error:
        raise ValueError(
            f"MLflow at {redact(uri)} does not answer (tracking.uri, MLFLOW_TRACKING_URI): {explain(error)}"
        ) from None
    if found is not None and found.lifecycle_stage != LifecycleStage.ACTIVE:
        raise ValueError(f"the experiment {experiment} was deleted in MLflow; restore it, or set tracking.experiment")


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


def is_refusal(error: Exception) -> bool:
    """Whether the server will never accept this request; anything else may pass."""
    return status_of(error) in REFUSALS or getattr(error, "error_code", None) == MISSING


def status_of(error: Exception) -> int | None:
    """HTTP status of a failed call; None where no server answered."""
    cause = error.__context__ if type(error).__name__ == "S3UploadFailedError" else error
    response = getattr(cause, "response", None)
    if isinstance(response, dict):  # of S3
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
    if response is not None:
        return int(response.status_code)
    if not isinstance(error, MlflowException):
        return None
    stated = re.search(r"failed with error code (\d{3})", error.message or "")  # MLflow has no code for a 413
    return int(stated[1]) if stated else int(error.get_http_status_code())


def explain(error: BaseException) -> str:
    """One line, without secrets."""
    text = (error.message if isinstance(error, MlflowException) else str(error)) or ""
    reason = getattr(next(iter(getattr(error.__context__, "args", ())), None), "reason", None)
    if reason is not None:  # urllib3's, after its own long story
        text = str(reason).rsplit(": ", 1)[-1]
    first = text.strip().splitlines()[0] if text.strip() else ""
    if isinstance(error, Exception) and status_of(error) == 401:
        first = f"it wants a user and a password (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD): {first}"
    return redact(f"{type(error).__name__}: {first}")[:500]
