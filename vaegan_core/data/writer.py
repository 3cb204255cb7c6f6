"""Writes a frame set to disk, atomically, with its contact sheet."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import signal
import threading
import uuid
from contextlib import suppress
from glob import escape
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from vaegan_core.data.contact_sheet import contact_sheet
from vaegan_core.data.frames import (
    CONTACT_SHEET_FILE,
    FRAMES_FILE,
    FrameManifest,
    FrameSet,
    Source,
    Split,
    write_manifest,
)

LOCK_FILE = "lock"


class FrameSetWriter:
    """Writes a frame set into a hidden sibling of `output` and renames it there in `finish`; memory use is constant.

    Leaving the `with` block before `finish`, by an exception, Ctrl-C or SIGTERM, removes everything written.
    A full disk is a ValueError. `scratch` is a directory for temporary files, removed at the end. What a process left
    that was killed is removed by the next one with the same output.
    """

    def __init__(self, output: Path, *, height: int, width: int, directory: Path | None = None) -> None:
        """`directory`, on the disk of `output`: where to write instead of a hidden sibling, over an unfinished set.

        Raises ValueError when `output` exists and is not an empty directory, or is where a disk is mounted.
        """
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise ValueError(
                f"the output of a capture must be new or empty, but {output} is not; remove it or choose another"
            )
        if os.path.ismount(output):
            raise ValueError(
                f"a capture is renamed to its output, but a disk is mounted at {output}; choose a directory on that "
                f"disk, such as {output / 'frames'}"
            )
        self.output = resolved(output)
        self.height, self.width = height, width
        self.sources: list[Source] = []
        self._names: set[str] = set()
        self._sibling = f".{output.name}.partial-"
        self._directory = directory or self.output.parent / f"{self._sibling}{uuid.uuid4().hex[:8]}"
        self.scratch = self._directory / "scratch"
        self._digest = hashlib.sha256()

    def __enter__(self) -> FrameSetWriter:
        self._sigterm: Any = signal.SIG_DFL
        if threading.current_thread() is threading.main_thread():
            self._sigterm = signal.signal(signal.SIGTERM, exit_on_sigterm)
        make_directory(self.scratch, self.output)
        self._hold()
        self._remove_abandoned()
        self._file: BinaryIO = (self._directory / FRAMES_FILE).open("wb")
        self._write_header()
        return self

    def _hold(self) -> None:
        """Locks `lock` in `scratch` until this process ends; it has that name only once it is locked."""
        unnamed = self.scratch / "lock.new"
        self._lock: BinaryIO = unnamed.open("wb")
        with suppress(OSError):  # a disk without locks
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unnamed.rename(self.scratch / LOCK_FILE)

    def _remove_abandoned(self) -> None:
        """Removes hidden siblings whose lock nobody holds."""
        for path in self.output.parent.glob(f"{escape(self._sibling)}*/{self.scratch.name}/{LOCK_FILE}"):
            with suppress(OSError), path.open("r+b") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parents[1], ignore_errors=True)

    def _write_header(self) -> None:
        """The header's size does not depend on the number of frames: NumPy leaves room for the first axis to grow."""
        shape = (sum(s.count for s in self.sources), self.height, self.width, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def add_source(self, name: str, split: Split) -> None:
        """Frames appended from here on belong to source `name`. Training sources come before test sources."""
        assert split == "test" or not self.sources or self.sources[-1].split == "train", "training sources come first"
        if name in self._names:
            raise ValueError(f"names of sources must differ, but {name!r} comes twice; rename one of them")
        self._names.add(name)
        start = self.sources[-1].start + self.sources[-1].count if self.sources else 0
        self.sources.append(Source(name=name, split=split, start=start, count=0))

    def append(self, frames: np.ndarray) -> None:
        """Adds uint8 [n, H, W, 3] to the current source."""
        assert frames.dtype == np.uint8
        assert frames.shape[1:] == (self.height, self.width, 3)
        data = np.ascontiguousarray(frames).data
        self._file.write(data)
        self._digest.update(data)
        source = self.sources[-1]
        self.sources[-1] = source.model_copy(update={"count": source.count + len(frames)})

    def finish(self, made_by: dict[str, Any]) -> FrameSet:
        """Completes the set (header, manifest, contact sheet) and puts it in place. ValueError without frames."""
        for split in ("train", "test"):
            if not any(s.count for s in self.sources if s.split == split):
                raise ValueError(f"a frame set needs {split} frames, but got none; capture more frames or more sources")
        self._file.seek(0)
        self._write_header()
        self._file.flush()
        os.fsync(self._file.fileno())
        manifest = FrameManifest(
            height=self.height,
            width=self.width,
            sources=tuple(self.sources),
            made_by=made_by,
            sha256=self._digest.hexdigest(),
        )
        write_manifest(self._directory, manifest)
        contact_sheet(FrameSet.open(self._directory), self._directory / CONTACT_SHEET_FILE)
        shutil.rmtree(self.scratch)
        self._directory.rename(self.output)
        return FrameSet.open(self.output)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # closing flushes, which fails again on a full disk
            self._file.close()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._lock.close()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._sigterm)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ValueError(f"no space left for {self.output}; free some, or choose another disk") from error


def resolved(output: Path) -> Path:
    """Where `output` is, absolute, also where it is a link: a directory cannot be renamed to a link."""
    return Path(os.path.realpath(output))


def make_directory(path: Path, output: Path) -> None:
    """Makes `path` and its parents, to write `output`. Raises ValueError when that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write {output}: {error.strerror}; choose another output") from error


def check_size(height: int, width: int) -> None:
    """Raises ValueError for frames smaller than 8 x 8 or larger than 1080 x 1920 (height x width)."""
    if not (8 <= height <= 1080 and 8 <= width <= 1920):
        raise ValueError(f"height must be in 8-1080 and width in 8-1920, but got {height} and {width}; change the size")


def same_capture(output: Path, settings: dict[str, Any]) -> bool:
    """Whether `output` already holds the complete frame set that a capture with these settings makes."""
    try:
        return FrameSet.open(output).manifest.made_by.get("settings") == settings
    except ValueError:
        return False


def exit_on_sigterm(signum: int, _frame: object) -> None:
    """A signal handler that ends the process by an exception, so that `finally` blocks run."""
    raise SystemExit(128 + signum)
