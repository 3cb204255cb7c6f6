"""Frame sets: packed uint8 frames on disk with a manifest, memory-mapped, split by source.

A frame set is a directory:

    frames.npy          uint8 [N, H, W, 3], grouped by source, training sources first, each in time order
    verified.json       which file was found to hold the frames of the manifest
    manifest.json       a FrameManifest: size, sources, split, how it was made, SHA-256 of the frames
    contact_sheet.png   frames of every source, for people
    features.safetensors   the set's own feature network and reference statistics (metrics/frame_features.py)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.lib.format import open_memmap
from pydantic import BaseModel, ConfigDict

from vaegan_core.problems import reason

FRAMES_FILE = "frames.npy"
MANIFEST_FILE = "manifest.json"
VERIFIED_FILE = "verified.json"
CONTACT_SHEET_FILE = "contact_sheet.png"
FEATURES_FILE = "features.safetensors"

Split = Literal["train", "test"]

LEAST_TRAIN, LEAST_TEST = 16, 2
"""Frames of each split that a feature network and an evaluation need."""


class Source(BaseModel):
    """One video, map or folder: frames `start` to `start + count` of the packed array."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    split: Split
    start: int
    count: int


class FrameManifest(BaseModel):
    """What a frame set holds and how it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    height: int
    width: int
    sources: tuple[Source, ...]
    made_by: dict[str, Any]
    """What captured it, its settings and library versions; free-form."""
    sha256: str
    """Hash of the raw bytes of the packed frames, in order."""


@dataclass(frozen=True)
class FrameSet:
    """Frames in memory or mapped from disk. `frames` is uint8 [N, H, W, 3] and is never written to."""

    frames: np.ndarray
    manifest: FrameManifest
    path: Path | None = None

    @classmethod
    def open(cls, path: Path | str) -> FrameSet:
        """Maps the frame set in directory `path`; the first time it reads all of it, to verify it.

        Raises ValueError when it is missing, unfinished, inconsistent, or does not hold the frames of its manifest.
        """
        path = Path(path)
        manifest_path = path / MANIFEST_FILE
        if not manifest_path.is_file():
            raise ValueError(
                f"no frame set at {path} (no {MANIFEST_FILE}); make one with a capture of Doom maps, videos or images"
            )
        try:
            manifest = FrameManifest.model_validate_json(manifest_path.read_bytes())
            if not (path / FRAMES_FILE).is_file() or not (path / FRAMES_FILE).stat().st_size:
                raise ValueError(f"{FRAMES_FILE} is no file, or is empty")
            frames = open_memmap(path / FRAMES_FILE, mode="r")
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"frame set {path} is damaged: {reason(error)}") from error
        expected = (sum(s.count for s in manifest.sources), manifest.height, manifest.width, 3)
        if frames.shape != expected or frames.dtype != np.uint8:
            raise ValueError(
                f"frame set {path} is damaged: {FRAMES_FILE} must hold uint8 {expected}, "
                f"got {frames.dtype} {frames.shape}"
            )
        frame_set = cls(frames, manifest, path)
        frame_set._verify_once(path)
        return frame_set

    def _verify_once(self, path: Path) -> None:
        """Verifies the frames unless this very file was verified before; a set that is read-only always is."""
        status = (path / FRAMES_FILE).stat()
        identity = {"size": status.st_size, "inode": status.st_ino}
        identity |= {"modified": status.st_mtime_ns, "changed": status.st_ctime_ns}
        note, content = path / VERIFIED_FILE, json.dumps(identity | {"sha256": self.manifest.sha256}).encode()
        if note.is_file() and note.read_bytes() == content:
            return
        self.verify()
        with suppress(OSError):
            note.write_bytes(content)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the frames, first 16 hex digits: enough to tell frame sets apart."""
        return self.manifest.sha256[:16]

    @property
    def num_train(self) -> int:
        """Number of training frames."""
        return sum(s.count for s in self.manifest.sources if s.split == "train")

    @property
    def train(self) -> np.ndarray:
        """Training frames, uint8 [N_train, H, W, 3]."""
        return self.frames[: self.num_train]

    @property
    def test(self) -> np.ndarray:
        """Test frames, uint8 [N_test, H, W, 3], from sources that no training frame comes from."""
        return self.frames[self.num_train :]

    def sources(self, split: Split) -> tuple[Source, ...]:
        """Sources of one split, in the order of their frames."""
        return tuple(s for s in self.manifest.sources if s.split == split)

    def verify(self, progress: Callable[[int], None] = lambda _: None) -> None:
        """Raises ValueError when the SHA-256 of the frames is not that of the manifest. `progress` gets frames done."""
        digest = hash_frames(self.frames, progress)
        if digest != self.manifest.sha256:
            raise ValueError(
                f"frames of {self.path} have SHA-256 {digest}, but the manifest says {self.manifest.sha256}: "
                f"{FRAMES_FILE} was changed or damaged; capture the set again, or copy it back"
            )


def hash_frames(frames: np.ndarray, progress: Callable[[int], None] = lambda _: None) -> str:
    """SHA-256 over the raw bytes, in blocks so that a mapped array never has to fit in memory."""
    digest = hashlib.sha256()
    for start in range(0, len(frames), 1024):
        digest.update(np.ascontiguousarray(frames[start : start + 1024]).data)
        progress(min(start + 1024, len(frames)))
    return digest.hexdigest()


def write_manifest(directory: Path, manifest: FrameManifest) -> None:
    """Writes the manifest into the directory of its frame set."""
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest.model_dump(), indent=2) + "\n")
