"""Whether a sweep's directory and its MLflow store can be written."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from search.paths import SQLITE
from search.redaction import redact


def check_storage(directory: Path, what: str = "sweeps go") -> None:
    """Raises ValueError, with `what` in it, when no file can be created below `directory`."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"{what} to {directory}, but {existing} is no directory; move it away")
    try:
        with TemporaryDirectory(dir=existing, prefix=".vaegan-check-") as scratch:
            (Path(scratch) / "file").write_bytes(b"x")
    except OSError as error:
        raise ValueError(f"{what} to {directory}, but nothing can be written there: {error.strerror}") from None


def check_tracking(uri: str, experiment: str) -> None:
    """Raises ValueError when MLflow at `uri` cannot be reached, when its SQLite file cannot be written, or when the
    experiment was deleted."""
    if uri.startswith(SQLITE):
        path = Path(uri.removeprefix(SQLITE))
        if path.exists() and not os.access(path, os.W_OK):
            raise ValueError(f"tracking goes to {path}, but that file cannot be written")
        check_storage(path.absolute().parent, "MLflow's runs (tracking.uri) go")
        if not path.exists() or _is_ready(path, experiment):
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


def _is_ready(path: Path, experiment: str) -> bool:
    """Whether MLflow's SQLite file shows by itself that it can be used: the schema is that of the installed MLflow, and
    the experiment is active or not there yet. In every other case MLflow is asked, which takes seconds to import."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            [(revision,)] = db.execute("SELECT version_num FROM alembic_version")
            stages = [
                stage
                for (stage,) in db.execute("SELECT lifecycle_stage FROM experiments WHERE name = ?", (experiment,))
            ]
    except (sqlite3.Error, ValueError):
        return False
    return {revision} == _newest_revisions() and set(stages) <= {"active"}


def _newest_revisions() -> set[str]:
    """Revisions of the installed MLflow's database migrations that no other one follows (checked with MLflow 3.17)."""
    spec = find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    texts = [path.read_text() for path in Path(spec.origin).parent.glob("store/db_migrations/versions/*.py")]
    revisions = {name for text in texts for name in re.findall(r"^revision = \"(\w+)\"", text, re.MULTILINE)}
    before = {
        name
        for text in texts
        for line in re.findall(r"^down_revision = .*", text, re.MULTILINE)
        for name in re.findall(r"\"(\w+)\"", line)
    }
    return revisions - before
