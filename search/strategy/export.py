"""Exports a sweep's Optuna study to a file for tools that show studies."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from optuna.storages import RDBStorage

from search.journal.journal import Journal
from search.journal.sweeps import open_sweep
from search.paths import JOURNAL_FILE
from search.strategy.study import build_study

STUDY_FILE = "optuna.db"


def export_study(name: str, output: Path | None) -> Path:
    """Writes the study to SQLite atomically, replacing an earlier export.

    Raises ValueError when there is no sweep of that name.
    """
    sweep, directory = open_sweep(name)
    path = output or directory / STUDY_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(directory / JOURNAL_FILE)
    with TemporaryDirectory(dir=path.parent) as scratch:
        temporary = Path(scratch) / path.name
        storage = RDBStorage(f"sqlite:///{temporary}")
        build_study(sweep, journal, storage)
        storage.remove_session()
        storage.engine.dispose()
        os.replace(temporary, path)
    journal.close()
    return path
