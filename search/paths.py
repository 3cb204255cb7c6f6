"""Where the files of sweeps and trials are, relative to the current directory."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from vaegan_core.spelling import did_you_mean

CHECKPOINT_FILE = "checkpoint.safetensors"
HANG_FILE = "hang.txt"
RUNS_DIRECTORY = Path("runs")
JOURNAL_FILE = "journal.db"
REPORT_FILE = "report.html"
STEPS_FILE = "steps.json"
"""How far running trials are between their evaluations."""
SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "databricks-uc")
"""What a tracking URI may begin with; databases may name a driver after a plus sign."""
STORAGE = "VAEGAN_STORAGE"
"""Variable with the URI of the storage."""
SQLITE = "sqlite:///"
"""Scheme of a tracking URI that is a file."""


BUCKETS = ("s3", "gs")
"""Schemes of storages that are no directory."""


def with_storage_scheme(uri: str) -> str:
    """The URI itself, without a slash at its end. Raises ValueError unless it is one that a storage can have."""
    scheme, separator, rest = uri.partition("://")
    if separator and scheme in BUCKETS and rest.strip("/"):
        return uri.rstrip("/")
    if not separator and os.path.isabs(uri):
        return uri.rstrip("/") or "/"
    raise ValueError(
        "must be s3://BUCKET or gs://BUCKET, with or without a folder, or the absolute path of a directory that every "
        f"machine has, but got {uri!r}"
    )


def storage_uri(given: str | None, configured: str | None = None) -> str:
    """The storage that is given, else configured, else $VAEGAN_STORAGE; "" without any. Raises ValueError where it
    cannot be one."""
    for what, uri in (("--storage ", given), ("storage ", configured), ("VAEGAN_STORAGE ", os.environ.get(STORAGE))):
        if uri:
            try:
                return with_storage_scheme(uri)
            except ValueError as error:
                raise ValueError(f"{what}{error}") from None
    return ""


def sweeps_directory() -> Path:
    """The directory that holds a directory for each sweep."""
    return RUNS_DIRECTORY / "sweeps"


def sweep_file(name: str) -> Path:
    """The YAML of a sweep that ran, which a report writes and its commands name."""
    return sweeps_directory() / name / "sweep.yaml"


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
    scheme, separator, rest = uri.partition(":")
    known = scheme.partition("+")[0]
    if known == SQLITE.partition(":")[0] and rest.lstrip("/") in ("", ":memory:"):
        raise ValueError(f"{what}must name a file (sqlite:///runs/mlflow.db), but got {uri!r}, which is kept in memory")
    try:
        urlsplit(uri)
    except ValueError as error:
        raise ValueError(f"{what}must be a URI, but got {uri!r} ({error})") from None
    if known == "file" or (not separator and "/" in uri):
        raise ValueError(
            f"{what}must be a server or a database, but got {uri!r}: MLflow keeps no runs in directories any more; "
            "name a file of SQLite, sqlite:///runs/mlflow.db"
        )
    if known in SCHEMES:
        return uri
    meant = did_you_mean(known, SCHEMES)
    raise ValueError(
        f"{what}must begin with one of {', '.join(f'{each}:' for each in SCHEMES)}, but got {uri!r}{meant}"
    )


def sweep_prefix(name: str) -> str:
    """Key prefix of a sweep in a storage."""
    return f"sweeps/{name}"


def trial_directory(sweep_directory: Path, number: int) -> Path:
    """The directory of a trial's files."""
    return sweep_directory / "trials" / f"{number:05d}"


def disk_use(directory: Path) -> int:
    """Bytes of all files below `directory`, each once whatever its links; files that vanish meanwhile do not count."""
    sizes: dict[tuple[int, int], int] = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):
                status = os.stat(os.path.join(parent, name))
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())
