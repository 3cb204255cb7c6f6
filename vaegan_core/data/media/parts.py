"""The work of one process of a capture: some files become a part, raw frames and a report on disk.

KEY.raw     uint8 [frames, H, W, 3]
KEY.json    the Part; written last, and only when another try would give the same
"""

from __future__ import annotations

import json
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import numpy as np

from vaegan_core.data.media.files import printable
from vaegan_core.data.media.pictures import Fit, fit_picture, read_picture, reason_of
from vaegan_core.data.media.videos import Every, VideoReader
from vaegan_core.data.writer import check_size, exit_on_sigterm

BEAT = 0.2
"""Seconds between two messages about progress."""


@dataclass(frozen=True)
class MediaSettings:
    """What is taken of a file and how it is shaped. Raises ValueError for values out of range."""

    kind: Literal["videos", "images"]
    height: int
    width: int
    fit: Fit = "crop"
    every: str = "key"
    """Of videos; see Every.parse."""
    max_per_source: int | None = None
    """Frames, the first of each source."""

    def __post_init__(self) -> None:
        check_size(self.height, self.width)
        Every.parse(self.every)
        if self.fit not in ("crop", "letterbox"):
            raise ValueError(f"--fit must be crop or letterbox, got {self.fit!r}")
        if self.max_per_source is not None and self.max_per_source < 1:
            raise ValueError(f"--max-per-source must be at least 1, got {self.max_per_source}")

    @property
    def frame_bytes(self) -> int:
        return self.height * self.width * 3


@dataclass(frozen=True)
class PartJob:
    """Make a part of `files` in `directory`: a video, or some images of one source."""

    source: str
    directory: str
    files: tuple[str, ...]
    settings: MediaSettings
    key: str
    size: int
    """Bytes of a video, number of images: what progress is measured in."""
    threads: int = 1
    careful: bool = False
    """Report each image before it is read, so that the one which kills the process is known."""
    skip: dict[str, str] = field(default_factory=dict)
    """Files that killed a process, and how."""

    def label(self, file: str) -> str:
        """What people call the file: a video by its source's name, an image by its source's and its own."""
        return self.source if self.settings.kind == "videos" else f"{self.source.rstrip('/')}/{printable(file)}"


@dataclass
class Part:
    """What became of a job's files; the dicts are from label to reason."""

    frames: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    """They gave nothing."""
    damaged: dict[str, str] = field(default_factory=dict)
    """They gave something."""
    reshaped: int = 0
    """Files with another aspect than the frames."""
    several: int = 0
    """Images that hold more than the picture taken."""
    final: bool = True
    """False when what went wrong may be right next time: no permission, a process killed."""


def load_part(job: PartJob, directory: Path) -> Part | None:
    """The part if it is there, complete."""
    try:
        part = Part(**json.loads((directory / f"{job.key}.json").read_bytes()))
        complete = (directory / f"{job.key}.raw").stat().st_size == part.frames * job.settings.frame_bytes
    except (OSError, ValueError, TypeError):
        return None
    return part if complete else None


def make_part(job: PartJob, directory: Path, report: Callable[[int], None]) -> Part:
    """Reads the job's files and writes the part into `directory`. Memory: one frame. Raises OSError from writing."""
    part = Part()
    frames = (_from_video if job.settings.kind == "videos" else _from_images)(job, part, report)
    temporary = directory / f"{job.key}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            for frame in frames:
                file.write(np.ascontiguousarray(frame).data)
        if job.threads > 1 and (part.bad or part.damaged):  # what comes through damage depends on the threads
            return make_part(replace(job, threads=1), directory, report)
        temporary.rename(directory / f"{job.key}.raw")
        if part.final:
            temporary.write_text(json.dumps(asdict(part)))
            temporary.rename(directory / f"{job.key}.json")
    finally:
        temporary.unlink(missing_ok=True)
    return part


def _from_video(job: PartJob, part: Part, report: Callable[[int], None]) -> Iterator[np.ndarray]:
    settings, (file,) = job.settings, job.files
    every = Every.parse(settings.every)
    reader = VideoReader(Path(job.directory, file), every, threads=job.threads)
    try:
        for image, pixel_aspect in reader.frames(report):
            frame, reshaped = fit_picture(image, settings.height, settings.width, settings.fit, pixel_aspect)
            part.reshaped = max(part.reshaped, int(reshaped))
            part.frames += 1
            yield np.asarray(frame)
            if part.frames == settings.max_per_source:
                break
    except Exception as error:
        reader.damage.append(reason_of(error))
        part.final = not _of_the_moment(error)
    if not part.frames:
        wanted = "key frames; try --every 1s" if every.unit == "key" else "frames in it"
        part.bad[job.label(file)] = reader.damage[0] if reader.damage else f"no {wanted}"
    elif reader.damage:
        places = "one damaged place" if len(reader.damage) == 1 else f"{len(reader.damage)} damaged places, the first"
        part.damaged[job.label(file)] = f"{places}: {reader.damage[0]}; {part.frames} frames kept"


def _from_images(job: PartJob, part: Part, report: Callable[[int], None]) -> Iterator[np.ndarray]:
    settings = job.settings
    for index, file in enumerate(job.files):
        if file in job.skip:
            part.bad[job.label(file)] = job.skip[file]
            part.final = False
            continue
        report(index)
        try:
            image, several = read_picture(Path(job.directory, file), settings.height, settings.width)
            frame, reshaped = fit_picture(image, settings.height, settings.width, settings.fit)
        except Exception as error:
            part.bad[job.label(file)] = reason_of(error)
            part.final = part.final and not _of_the_moment(error)
            continue
        part.frames += 1
        part.reshaped += reshaped
        part.several += several
        yield np.asarray(frame)


def _of_the_moment(error: Exception) -> bool:
    """Whether the system, not the file's content, is the reason; Pillow's own OSErrors have no number."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None)


def worker(connection: Connection, directory: Path) -> None:
    """Takes jobs; sends how far it is (int), then the Part, or an OSError when `directory` cannot be written."""
    signal.signal(signal.SIGTERM, exit_on_sigterm)
    warnings.simplefilter("ignore")  # Pillow's about odd files; what matters ends up in the Part
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job: PartJob = connection.recv()
            message: Part | OSError
            try:
                message = make_part(job, directory, _reporter(connection, every_time=job.careful))
            except OSError as error:
                message = OSError(error.errno, error.strerror)
            connection.send(message)


def _reporter(connection: Connection, *, every_time: bool) -> Callable[[int], None]:
    last = time.monotonic()

    def report(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if every_time or now - last > BEAT:
            last = now
            try:
                connection.send(done)
            except OSError:  # the parent is gone
                raise SystemExit from None

    return report
