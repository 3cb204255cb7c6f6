"""Frame sets in a storage, each once, under its fingerprint."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import mkdtemp

from search.paths import RUNS_DIRECTORY
from search.storage.store import Store

COMPLETE = "complete"
"""Written when every file is there."""


def _prefix(fingerprint: str) -> str:
    return f"frames/{fingerprint}"


def has_frames(store: Store, fingerprint: str) -> bool:
    """Whether a frame set is in the storage, whole."""
    return store.read(f"{_prefix(fingerprint)}/{COMPLETE}") is not None


def put_frames(store: Store, frames: Path, fingerprint: str) -> bool:
    """Brings a frame set to the storage unless it is there; whether anything was sent."""
    prefix = _prefix(fingerprint)
    if has_frames(store, fingerprint):
        return False
    for path in sorted(frames.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            store.put(f"{prefix}/files/{path.name}", path)
    store.put(f"{prefix}/{COMPLETE}", b"")
    return True


def local_frames(fingerprint: str) -> Path:
    """Where a frame set of a storage lies on this machine."""
    return RUNS_DIRECTORY / "frames" / fingerprint


def fetch_frames(store: Store, fingerprint: str) -> Path:
    """The directory of a frame set on this machine, fetched from the storage unless it is there.

    Raises ValueError where the storage does not have it.
    """
    directory, prefix = local_frames(fingerprint), _prefix(fingerprint)
    if directory.is_dir():
        return directory
    if not has_frames(store, fingerprint):
        raise ValueError(
            f"the frames {fingerprint} are not in {store.uri}; start the sweep from a machine that has them, or copy "
            f"them to {directory}"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(mkdtemp(dir=directory.parent, prefix=f".{fingerprint}-"))
    try:
        for key in store.keys(f"{prefix}/files"):
            store.download(key, unfinished / Path(key).name)
        os.chmod(unfinished, 0o755)
        os.rename(unfinished, directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return directory
