"""What MLflow's errors mean, and how to say it."""

from __future__ import annotations

import re

from mlflow.exceptions import MlflowException

from search.redaction import redact

REFUSALS = (400, 413)
"""HTTP statuses of a request that the same server will never accept."""
MISSING = "RESOURCE_DOES_NOT_EXIST"
UNREADABLE = (MlflowException, OSError, ValueError)
"""What reading from MLflow may raise: the server is away, refuses, or does not hold what was asked for."""


def is_refusal(error: Exception) -> bool:
    """Whether the server will never accept this request; any other failure may be temporary."""
    return status_of(error) in REFUSALS or getattr(error, "error_code", None) == MISSING


def status_of(error: Exception) -> int | None:
    """HTTP status of a failed call; None if no server answered."""
    cause = error.__context__ if type(error).__name__ == "S3UploadFailedError" else error
    response = getattr(cause, "response", None)
    if isinstance(response, dict):  # from S3
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
    if response is not None:
        return int(response.status_code)
    if not isinstance(error, MlflowException):
        return None
    stated = re.search(r"failed with error code (\d{3})", error.message or "")  # MLflow has no error code for 413
    return int(stated[1]) if stated else int(error.get_http_status_code())


def explain(error: BaseException) -> str:
    """The error in one line, without secrets."""
    text = (error.message if isinstance(error, MlflowException) else str(error)) or ""
    reason = getattr(next(iter(getattr(error.__context__, "args", ())), None), "reason", None)
    if reason is not None:  # urllib3's, at the end of a long message
        text = str(reason).rsplit(": ", 1)[-1]
    first = text.strip().splitlines()[0] if text.strip() else ""
    if isinstance(error, Exception) and status_of(error) == 401:
        first = f"it requires a user and a password (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD): {first}"
    return redact(f"{type(error).__name__}: {first}")[:500]
