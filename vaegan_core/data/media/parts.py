"""The work of one process of a capture: it turns some files into a part, raw frames and a report on disk.

KEY.raw     uint8 [frames, H, W, 3]
KEY.json    the Part; written last, and only when another try would give the same result
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
    """What to take from a file, and the shape to give it. Raises ValueError for values out of range."""

    kind: Literal["videos", "images"]
    height: int
    width: int
    fit: Fit = "crop"
    every: str = "key"
    """For videos; see Every.parse."""
    max_per_source: int | None = None
    """Number of frames, taken from the start of each source. None: all."""

    def __post_init__(self) -> None:
        check_size(self.height, self.width)
        Every.parse(self.every)
        if self.fit not in ("crop", "letterbox"):
            raise ValueError(f"fit must be crop or letterbox, but got {self.fit!r}")
        if self.max_per_source is not None and self.max_per_source < 1:
            raise ValueError(f"max_per_source must be at least 1, but got {self.max_per_source}; None takes all")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
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
    """Report each image before reading it, so that the one that kills the process is known."""
    skip: dict[str, str] = field(default_factory=dict)
    """Files that killed a process, with the reason."""

    def label(self, file: str) -> str:
        """The name of the file for people: that of its source for a video, of source and file for an image."""
        return self.source if self.settings.kind == "videos" else f"{self.source.rstrip('/')}/{printable(file)}"


@dataclass
class Part:
    """What came out of a job's files; the dicts map labels to reasons."""

    frames: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    """Files that gave nothing."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Damaged files that gave something."""
    reshaped: int = 0
    """Files whose aspect differs from that of the frames."""
    several: int = 0
    """Image files that hold further pictures."""
    final: bool = True
    """False when the problem may be temporary: no permission, a killed process."""


def load_part(job: PartJob, directory: Path) -> Part | None:
    """The part in `directory`; None unless it is complete."""
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
        if job.threads > 1 and (part.bad or part.damaged):  # what survives damage depends on the number of threads
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
        nothing = "no key frames; set every to 1s" if every.unit == "key" else "no frames"
        part.bad[job.label(file)] = reader.damage[0] if reader.damage else nothing
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
    """Whether the reason is the system, not the file's content; Pillow's own OSErrors have no number."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None)


def worker(connection: Connection, directory: Path) -> None:
    """Takes jobs; sends its progress (int), then the Part, or an OSError when `directory` cannot be written."""
    signal.signal(signal.SIGTERM, exit_on_sigterm)
    warnings.simplefilter("ignore")  # Pillow warns about odd files; what matters is in the Part
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
            except OSError:  # the parent has ended
                raise SystemExit from None

    return report
