"""Whether a sweep's directory and its MLflow store can be written."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from search.paths import SQLITE
from search.redaction import redact


def check_storage(directory: Path) -> None:
    """Raises ValueError when no file can be created below `directory`."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.is_dir())
    try:
        with TemporaryDirectory(dir=existing, prefix=".vaegan-check-") as scratch:
            (Path(scratch) / "file").write_bytes(b"x")
    except OSError as error:
        raise ValueError(f"sweeps go to {directory}, but nothing can be written there: {error.strerror}") from None


def check_tracking(uri: str, experiment: str) -> None:
    """Raises ValueError when MLflow at `uri` cannot be reached, when its SQLite file cannot be written, or when the
    experiment was deleted."""
    if uri.startswith(SQLITE):
        path = Path(uri.removeprefix(SQLITE))
        if path.exists() and not os.access(path, os.W_OK):
            raise ValueError(f"tracking goes to {path}, but that file cannot be written")
        check_storage(path.absolute().parent)
        if not path.exists():
            return
    from search.tracking.client import open_client  # takes seconds to import
    from search.tracking.errors import explain

    try:
        found = open_client(uri).get_experiment_by_name(experiment)
    except Exception as error:
        raise ValueError(
            f"MLflow at {redact(uri)} does not answer (tracking.uri, MLFLOW_TRACKING_URI): {explain(error)}"
        ) from None
    if found is not None and found.lifecycle_stage != "active":
        raise ValueError(f"the experiment {experiment} was deleted in MLflow; restore it, or set tracking.experiment")
