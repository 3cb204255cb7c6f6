"""Frames of a real 3D game: ViZDoom's maps seen by a scripted wanderer, captured by worker processes, one map each.

The same arguments give the same frames, byte for byte, whatever the number of workers.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vaegan_core.data.doom.maps import DoomMap, frames_per_map, split_evenly
from vaegan_core.data.doom.wanderer import MIN_DIFFERENCE, NEAR, Counts, MapJob, worker
from vaegan_core.data.frames import FrameSet
from vaegan_core.data.workers import WorkerPool
from vaegan_core.data.writer import FrameSetWriter, check_size

_Pool = WorkerPool["MapJob", "np.ndarray | Counts | str"]


def capture_doom(
    output: Path,
    *,
    num_frames: int,
    height: int,
    width: int,
    seed: int,
    progress: Callable[[int], None],
    workers: int | None = None,
) -> FrameSet:
    """Captures `num_frames` frames, uint8 [height, width, 3], of ViZDoom maps; a fifth of them from test maps.

    The same arguments give the same frames with any number of `workers` (default: one per core). A map that crashes
    ViZDoom twice is skipped, named in the manifest, and replaced by the others. `progress` gets the number of frames so
    far.
    Raises ValueError for settings out of range, without ViZDoom, when `output` is not empty, or on a full disk.
    """
    vizdoom_version = _check_doom(num_frames, height, width, workers)
    quotas = frames_per_map(num_frames)
    size = workers or len(os.sched_getaffinity(0))
    with FrameSetWriter(output, height=height, width=width) as writer:
        with _Pool(min(size, len(quotas)), worker, writer.scratch, more=np.ndarray) as pool:
            capture = _DoomCapture(quotas, height, width, seed, writer.scratch, progress)
            capture.run(pool)
        for source in quotas:
            capture.move(source, writer)
        made_by = {
            "command": "doom",
            "settings": {"num_frames": num_frames, "height": height, "width": width, "seed": seed},
            "versions": {"vizdoom": vizdoom_version},
            "dropped_duplicates": capture.totals.duplicates,
            "dropped_walls": capture.totals.walls,
            "skipped_sources": capture.skipped,
        }
        return writer.finish(made_by)


def _check_doom(num_frames: int, height: int, width: int, workers: int | None) -> str:
    """Returns ViZDoom's version. Raises ValueError for arguments out of range, or without ViZDoom."""
    try:
        import vizdoom
    except ImportError as error:
        raise ValueError("ViZDoom is not installed; run pip install 'vaegan-search[doom]'") from error
    if num_frames < 40:
        raise ValueError(f"num_frames must be at least 40, but got {num_frames}; ask for more frames")
    check_size(height, width)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, but got {workers}; leave it out for one per core")
    return str(vizdoom.__version__)


class _DoomCapture:
    """Fills the quotas: frames that a map does not give in a round are asked of its split's other maps in the next."""

    def __init__(
        self,
        quotas: dict[DoomMap, int],
        height: int,
        width: int,
        seed: int,
        scratch: Path,
        progress: Callable[[int], None],
    ) -> None:
        self.quotas = quotas
        self.height, self.width, self.seed = height, width, seed
        self.scratch = scratch
        self.progress = progress
        self.captured = dict.fromkeys(quotas, 0)
        self.skipped: dict[str, str] = {}
        self.totals = Counts()

    def run(self, pool: _Pool) -> None:
        """Captures in rounds until no frames are missing."""
        wanted, number = self.quotas, 0
        while wanted:
            jobs = [self._job(source, count, number) for source, count in wanted.items()]
            again = self._round(pool, jobs)
            for job, reason in self._round(pool, list(again)).items():
                self._skip(job.source, reason)
            wanted, number = self._missing(), number + 1

    def _round(self, pool: _Pool, jobs: list[MapJob]) -> dict[MapJob, str]:
        """Stores the frames of the jobs; returns those that crashed, with the reason, and drops their frames.

        ViZDoom sometimes crashes when several start at once, and the same map works the next time.
        """
        before = {job.source: self.captured[job.source] for job in jobs}
        crashed = {}
        for job, message in pool.run(jobs):
            if isinstance(message, str):
                crashed[job] = message
                self._keep(job.source, before[job.source])
            else:
                self._take(job, message)
        return crashed

    def _keep(self, source: DoomMap, count: int) -> None:
        """Drops all but the first `count` frames of `source`."""
        self.captured[source] = count
        if self._path(source).exists():
            os.truncate(self._path(source), count * self.height * self.width * 3)

    def _skip(self, source: DoomMap, reason: str) -> None:
        self.skipped[source.name] = reason
        self._keep(source, 0)

    def _job(self, source: DoomMap, count: int, number: int) -> MapJob:
        """The job of round `number` (from 0), less picky than the one before; from the third on every frame will do."""
        seed = np.random.SeedSequence([self.seed, zlib.crc32(source.name.encode()), number]).generate_state(1)[0]
        picky = max(0.0, 1 - number / 2)
        return MapJob(source, count, self.height, self.width, int(seed), MIN_DIFFERENCE * picky, NEAR * picky)

    def _path(self, source: DoomMap) -> Path:
        return self.scratch / f"{source.name.replace('/', '-')}.raw"

    def _take(self, job: MapJob, message: np.ndarray | Counts) -> None:
        if isinstance(message, np.ndarray):
            with self._path(job.source).open("ab") as file:
                file.write(message.data)
            self.captured[job.source] += len(message)
            self.progress(sum(self.captured.values()))
        else:
            self.totals.duplicates += message.duplicates
            self.totals.walls += message.walls

    def _missing(self) -> dict[DoomMap, int]:
        """Frames still to capture, shared evenly among the split's working maps. Raises ValueError if none works."""
        missing: dict[DoomMap, int] = {}
        for split in ("train", "test"):
            maps = [m for m in self.quotas if m.split == split]
            short = sum(self.quotas[m] - self.captured[m] for m in maps)
            healthy = [m for m in maps if m.name not in self.skipped]
            if short and not healthy:
                raise ValueError(
                    f"every {split} map failed in ViZDoom, so there are no {split} frames; the reasons: {self.skipped}"
                )
            missing |= (
                {m: n for m, n in zip(healthy, split_evenly(short, len(healthy)), strict=True) if n} if short else {}
            )
        return missing

    def move(self, source: DoomMap, writer: FrameSetWriter) -> None:
        """Appends the frames of `source` to the frame set."""
        if not self.captured[source]:
            return
        writer.add_source(source.name, source.split)
        block = 256 * self.height * self.width * 3
        with self._path(source).open("rb") as file:
            while data := file.read(block):
                writer.append(np.frombuffer(data, np.uint8).reshape(-1, self.height, self.width, 3))
        self._path(source).unlink()
