"""Journals that earlier versions wrote, of sweeps cut off by `kill -9` whose frames lay in `1e3`.

Each comes from a sweep of tests/support/sweep_files.py with 5 trials of 80 steps, evaluated every 40 steps, with MLflow
unavailable; its pictures were replaced with ones of a single pixel.
"""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

JOURNALS = Path(__file__).parent / "journals"
NAME = "small"


def stored(version: int) -> Path:
    return JOURNALS / f"version-{version}.db.gz"


def unpack(version: int, path: Path) -> Path:
    """The journal of that version, at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(stored(version)) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target)
    return path
