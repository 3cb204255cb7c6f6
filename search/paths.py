"""Where the files of sweeps and trials are, relative to the current directory."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from vaegan_core.spelling import did_you_mean

CHECKPOINT_FILE = "checkpoint.safetensors"
ADOPTED_FILE = "adopted.safetensors"
"""Another trial's state, from which this one continues."""
HANG_FILE = "hang.txt"
RUNS_DIRECTORY = Path("runs")
JOURNAL_FILE = "journal.db"
REPORT_FILE = "report.html"
STEPS_FILE = "steps.json"
"""How far running trials are between their evaluations."""
SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks", "databricks-uc")
"""What a tracking URI may begin with; databases may name a driver after a plus sign."""
SQLITE = "sqlite:///"
"""Scheme of a tracking URI that is a file."""


def sweeps_directory() -> Path:
    """The directory that holds a directory for each sweep."""
    return RUNS_DIRECTORY / "sweeps"


def tracking_uri(configured: str | None = None) -> str:
    """The configured URI, else $MLFLOW_TRACKING_URI, else SQLite under runs/. Raises ValueError where it cannot be."""
    given = configured or os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return with_known_scheme(given, "the MLflow tracking URI ")
    path = (RUNS_DIRECTORY / "mlflow.db").resolve()
    if "?" in str(path):
        raise ValueError(f"a SQLite URI cannot name {path}; work in a directory without a question mark in its path")
    return f"{SQLITE}{path}"


def with_known_scheme(uri: str, what: str = "") -> str:
    """The URI itself. Raises ValueError, which begins with `what`, unless it is one that MLflow can track with."""
    scheme, separator, _ = uri.partition(":")
    known = scheme.partition("+")[0]
    if known in SCHEMES or (not separator and "/" in uri):
        return uri
    meant = did_you_mean(known, SCHEMES)
    raise ValueError(
        f"{what}must begin with one of {', '.join(f'{each}:' for each in SCHEMES)}, but got {uri!r}{meant}"
    )


def trial_directory(sweep_directory: Path, number: int) -> Path:
    """The directory of a trial's files."""
    return sweep_directory / "trials" / f"{number:05d}"


def state_file(directory: Path, step: int) -> Path:
    """A copy of a trial's checkpoint as it was at `step`."""
    return directory / f"at-{step}-{CHECKPOINT_FILE}"


def disk_use(directory: Path) -> int:
    """Bytes of all files below `directory`, each once whatever its links; files that vanish meanwhile do not count."""
    sizes: dict[tuple[int, int], int] = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):
                status = os.stat(os.path.join(parent, name))
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())
