"""A frame set from videos or images, with all cores, constant memory, and no work done twice.

Worker processes turn files into parts (parts.py), in a hidden directory beside the output whose name comes from the
settings. The parts are then assembled (assemble.py). The same files and settings give the same frames, byte for byte,
with any number of workers and after any interruption.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vaegan_core.data.frames import LEAST_TEST, MANIFEST_FILE, FrameSet
from vaegan_core.data.media.assemble import Assembly, check_enough
from vaegan_core.data.media.files import SourceFiles, printable
from vaegan_core.data.media.parts import MediaSettings, Part, PartJob, load_part, worker
from vaegan_core.data.workers import WorkerPool
from vaegan_core.data.writer import FrameSetWriter, make_directory, resolved, same_capture

IMAGES_PER_PART = 128
BAD_SHOWN = 20
PARTS_VERSION = 3
"""Changes with the frames that the same files give."""

_Pool = WorkerPool[PartJob, "int | Part | OSError"]


def capture_media(
    output: Path,
    sources: list[SourceFiles],
    settings: MediaSettings,
    *,
    test_share: float = 0.2,
    seed: int = 0,
    allow_bad: float = 0.1,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    say: Callable[[str], None] = lambda _: None,
    workers: int | None = None,
) -> FrameSet:
    """Builds the frame set of all `sources` at `output`, resuming or reusing an earlier call.

    Sources with about `test_share` of the frames, at least one source, are for testing (split.py). A single source is
    cut in time instead: its last part is for testing. Copies of frames of another source and sources that show nothing
    are left out. Files that give nothing are skipped and named in the manifest. `progress` gets what is done and the
    total, in bytes of videos or number of images; `say` gets a line of text now and then.

    Raises ValueError when the share of bad files is above `allow_bad`, for too few frames or settings out of range, for
    an `output` that holds something else, is being written by another process or cannot be written, and on a full disk.
    Afterwards, as after Ctrl-C or a kill, the same call continues where this one stopped.
    """
    _check(test_share, allow_bad, workers)
    jobs, inputs = _plan(sources, settings)
    recorded = _recorded(settings) | {"test_share": test_share, "seed": seed, "inputs": inputs}
    place = _workplace(resolved(output), settings)
    if same_capture(output, recorded):
        frame_set = FrameSet.open(output)
        frame_set.verify()
        if place.exists():
            with suppress(ValueError), _held(place, output):
                shutil.rmtree(place, ignore_errors=True)
        say(f"{output} already holds these frames.")
        return frame_set
    if (output / MANIFEST_FILE).exists():
        raise ValueError(
            f"{output} already holds another frame set, made with other settings or files; remove it or choose "
            "another output"
        )
    if settings.kind == "images":
        _check_number(sum(len(job.files) for job in jobs))
    writer = FrameSetWriter(output, height=settings.height, width=settings.width, directory=place / "set")
    with _held(place, output), writer:
        capture = _Capture(jobs, place, progress, say)
        capture.run(workers or len(os.sched_getaffinity(0)))
        capture.check_bad(allow_bad)
        say(f"Putting {capture.total('frames')} frames together.")
        parts = [(job, capture.parts[job.key]) for job in jobs]
        assembled = Assembly(parts, place, say).write(writer, test_share=test_share, seed=seed)
        frame_set = writer.finish(capture.made_by(recorded) | assembled)
        shutil.rmtree(place, ignore_errors=True)
    return frame_set


def _check(test_share: float, allow_bad: float, workers: int | None) -> None:
    if not 0 < test_share < 1:
        raise ValueError(f"test_share must lie between 0 and 1, but got {test_share}")
    if not 0 <= allow_bad <= 1:
        raise ValueError(f"allow_bad is a share and must be in 0-1, but got {allow_bad}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, but got {workers}; leave it out for one per core")


def _check_number(images: int) -> None:
    """Raises ValueError when there are too few, before any is read."""
    test = min(LEAST_TEST, images)
    check_enough(images - test, test, "images", more_of_each=False)


def _recorded(settings: MediaSettings) -> dict[str, Any]:
    """The settings as in the manifest, without those that do not concern this kind."""
    return {k: v for k, v in asdict(settings).items() if k != "kind" and (k != "every" or settings.kind == "videos")}


def _plan(sources: list[SourceFiles], settings: MediaSettings) -> tuple[list[PartJob], str]:
    """The jobs, in the order of the frames, and a hash of the names and sizes of all files.

    A job's key also depends on paths and times of its files: a file that has changed is read again.
    """
    jobs, inputs = [], hashlib.sha256()
    for source in sources:
        length = len(source.files) if settings.kind == "videos" else settings.max_per_source or len(source.files)
        for start in range(0, min(length, len(source.files)), IMAGES_PER_PART):
            files = source.files[start : min(start + IMAGES_PER_PART, length)]
            key, sizes = hashlib.sha256(), []
            for file in files:
                size, modified = _size_and_time(os.path.join(source.directory, file))
                inputs.update(json.dumps([source.name, printable(file), size]).encode())
                key.update(json.dumps([source.directory, file, size, modified]).encode())
                sizes.append(size)
            units = max(sizes[0], 1) if settings.kind == "videos" else len(files)
            jobs.append(PartJob(source.name, source.directory, files, settings, key.hexdigest()[:24], units))
    return jobs, inputs.hexdigest()[:16]


def _size_and_time(path: str) -> tuple[int, int]:
    """Bytes, and time of change in ns; (-1, 0) when there is no such file, which its reader will report."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, 0
    return status.st_size, status.st_mtime_ns


def _workplace(output: Path, settings: MediaSettings) -> Path:
    """Directory of the parts. Its name depends on everything that they depend on, apart from the files."""
    parts_of = [asdict(settings), version("pillow"), version("av"), IMAGES_PER_PART, PARTS_VERSION]
    return output.parent / f".{output.name}.parts-{hashlib.sha256(json.dumps(parts_of).encode()).hexdigest()[:8]}"


@contextmanager
def _held(place: Path, output: Path) -> Iterator[None]:
    """Keeps a second capture out, by a lock that ends with this process. Removes `place` if no part is in it."""
    make_directory(place, output)
    with (place / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock.fileno()).st_nlink == 0:  # removed, with its directory, by the process that had it
                raise BlockingIOError
        except OSError:
            raise ValueError(f"another process is making {output}; wait for it or stop it") from None
        for leftover in place.glob("*.tmp"):
            leftover.unlink(missing_ok=True)
        try:
            yield
        finally:
            if not any(place.glob("*.json")):
                shutil.rmtree(place, ignore_errors=True)


class _Capture:
    """Turns jobs into parts, and sums up what became of them."""

    def __init__(
        self, jobs: list[PartJob], place: Path, progress: Callable[[int, int], None], say: Callable[[str], None]
    ) -> None:
        self.jobs = jobs
        self.kind = jobs[0].settings.kind
        self.place = place
        self.progress = progress
        self.say = say
        self.parts: dict[str, Part] = {}
        self._size = sum(job.size for job in jobs)
        self._done = 0
        self._reached: dict[str, int] = {}

    def total(self, name: str) -> int:
        """Sum of a count, or number of entries of a dict, over all parts."""
        values = [getattr(part, name) for part in self.parts.values()]
        return sum(len(v) if isinstance(v, dict) else int(v) for v in values)

    def all_of(self, name: str) -> dict[str, str]:
        """A dict of all parts as one, in the order of the jobs."""
        return {k: v for job in self.jobs for k, v in getattr(self.parts[job.key], name).items()}

    @property
    def num_files(self) -> int:
        return sum(len(job.files) for job in self.jobs)

    def run(self, cores: int) -> None:
        """Makes the missing parts. A file that kills its process is bad; the others of its job are not."""
        waiting = [job for job in self.jobs if not self._load(job)]
        if self.parts:
            self.say(f"Resuming: {len(self.parts)} of {len(self.jobs)} parts are done.")
        for other in self._others():
            self.say(
                f"{other} is left over from an unfinished capture with other settings; remove it if you do not need it."
            )
        threads = max(1, cores // len(self.jobs))
        waiting = [replace(job, threads=threads) for job in waiting]
        with _Pool(min(cores, max(1, len(waiting))), worker, self.place, more=int) as pool:
            while waiting:
                waiting = [again for job, message in pool.run(waiting) if (again := self._take(job, message))]

    def _load(self, job: PartJob) -> bool:
        part = load_part(job, self.place)
        if part:
            self._add(job, part)
        return part is not None

    def _others(self) -> list[Path]:
        start = self.place.name.rpartition("-")[0]
        return [p for p in self.place.parent.iterdir() if p.name.startswith(start) and p != self.place]

    def _take(self, job: PartJob, message: int | Part | OSError | str) -> PartJob | None:
        """Stores a worker's message. Returns the job if it has to be repeated."""
        if isinstance(message, OSError):
            raise message
        if isinstance(message, Part):
            self._add(job, message)
        elif isinstance(message, int):
            self._reached[job.key] = message
        else:
            return self._died(job, message)
        self.progress(self._done + sum(self._reached.values()), self._size)
        return None

    def _add(self, job: PartJob, part: Part) -> None:
        self.parts[job.key] = part
        self._reached.pop(job.key, None)
        self._done += job.size

    def _died(self, job: PartJob, reason: str) -> PartJob | None:
        reached = self._reached.pop(job.key, None)
        if self.kind == "images" and not job.careful:
            return replace(job, careful=True)
        if self.kind == "images" and reached is not None:
            return replace(job, skip=job.skip | {job.files[reached]: reason})
        self._add(job, Part(bad={job.label(file): reason for file in job.files}, final=False))
        return None

    def check_bad(self, allowed: float) -> None:
        """Raises ValueError when too many files gave nothing."""
        bad = self.all_of("bad")
        share = len(bad) / self.num_files
        if share <= allowed and len(bad) < self.num_files:
            return
        listed = [f"  {name}: {reason}" for name, reason in list(bad.items())[:BAD_SHOWN]]
        listed += [f"  and {len(bad) - BAD_SHOWN} more"] if len(bad) > BAD_SHOWN else []
        if len(bad) == self.num_files:
            raise ValueError("\n".join([f"none of the {len(bad)} {self.kind} could be used:", *listed]))
        enough = math.ceil(share * 100) / 100
        rule = (
            f"{len(bad)} of {self.num_files} {self.kind} are bad, more than the allowed share of {allowed:g}; repair "
            f"or remove them, or skip them with allow_bad {enough:g} (the others are not read again):"
        )
        raise ValueError("\n".join([rule, *listed]))

    def made_by(self, recorded: dict[str, Any]) -> dict[str, Any]:
        """Entries of the manifest."""
        libraries = ("av", "pillow") if self.kind == "videos" else ("pillow",)
        return {
            "command": self.kind,
            "settings": recorded,
            "versions": {name: version(name) for name in libraries},
            "files": self.num_files,
            "bad_files": self.all_of("bad"),
            "damaged_files": self.all_of("damaged"),
            "reshaped_files": self.total("reshaped"),
            "files_with_several_pictures": self.total("several"),
        }
