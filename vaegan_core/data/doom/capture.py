"""Real 3D-game frames: ViZDoom's maps seen by a scripted wanderer, captured by worker processes, one map each.

The same arguments give the same frames, byte for byte, whatever the number of workers.
"""

from __future__ import annotations

import os
import signal
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vaegan_core.data.frames import FrameSet, Split
from vaegan_core.data.workers import WorkerPool
from vaegan_core.data.writer import FrameSetWriter, check_size, exit_on_sigterm

_Pool = WorkerPool["_Job", "np.ndarray | _Counts | str"]

# ---------------------------------------------------------------------------------------------------------------------
# Which maps

TRAIN_SCENARIOS = ("deathmatch", "my_way_home", "health_gathering_supreme", "deadly_corridor", "multi_deathmatch")
TEST_SCENARIOS = ("defend_the_center", "defend_the_line")
FRAMES_PER_SOURCE = 150
"""About so many frames are wanted of a map before another map is added."""
MIN_SOURCES = 6
TEST_SHARE = 0.2


@dataclass(frozen=True)
class DoomMap:
    """A map of a game file (`wad`, with extension, beside the ViZDoom module), or of a bundled scenario."""

    name: str
    split: Split
    wad: str
    map: str
    scenario: str | None = None


def doom_maps(split: Split) -> list[DoomMap]:
    """All maps of `split`, in the order in which a growing frame set takes them in; every fifth map is a test map."""
    first = [("freedoom1.wad", f"E{episode}M{number}") for number in range(1, 10) for episode in range(1, 5)]
    second = [("freedoom2.wad", f"MAP{number:02}") for number in range(1, 33)]
    mixed = [pair for pairs in zip(first, second, strict=False) for pair in pairs] + first[len(second) :]
    chosen = [pair for i, pair in enumerate(mixed) if (i % 5 == 4) == (split == "test")]
    maps = [DoomMap(f"{wad.removesuffix('.wad')}/{name}", split, wad, name) for wad, name in chosen]
    scenarios = TRAIN_SCENARIOS if split == "train" else TEST_SCENARIOS
    for i, name in enumerate(scenarios):
        maps.insert(4 * i + 3, DoomMap(f"scenario/{name}", split, "freedoom2.wad", "MAP01", f"{name}.wad"))
    return maps


def _quotas(num_frames: int) -> dict[DoomMap, int]:
    """Frames of each map, training maps first; fixed by `num_frames` alone."""
    quotas: dict[DoomMap, int] = {}
    num_test = round(TEST_SHARE * num_frames)
    for split, frames, least in (("train", num_frames - num_test, MIN_SOURCES - 2), ("test", num_test, 2)):
        maps = doom_maps(split)  # type: ignore[arg-type]
        maps = maps[: max(least, round(frames / FRAMES_PER_SOURCE))]
        quotas |= {m: count for m, count in zip(maps, _split_evenly(frames, len(maps)), strict=True) if count}
    return quotas


def _split_evenly(total: int, parts: int) -> list[int]:
    return [total // parts + (i < total % parts) for i in range(parts)]


# ---------------------------------------------------------------------------------------------------------------------
# ViZDoom: the wanderer, in a worker process

FRAME_SKIP = 8
"""Game tics (1/35 s) per frame."""
STEPS_PER_PLACE = 30
"""After so many frames the wanderer is put where another object of the map stands."""
NEAR, NEAR_SHARE = 4.0, 0.1
"""Of frames whose middle is nearer than `NEAR` (units of the depth buffer), walls, only this share is kept."""
MIN_DIFFERENCE = 8.0
"""Frames nearer than this (mean |difference| of thumbnails, 0-255) to a recent one of their map are duplicates."""
REMEMBERED = 512
BLOCK = 32
RESOLUTIONS = (
    (256, 144),
    (320, 180),
    (400, 225),
    (512, 288),
    (640, 360),
    (800, 450),
    (1024, 576),
    (1280, 720),
    (1920, 1080),
)


@dataclass(frozen=True)
class _Job:
    """Capture `count` frames of `source`; the picky rounds drop walls and duplicates, the last one keeps all."""

    source: DoomMap
    count: int
    height: int
    width: int
    seed: int
    min_difference: float
    near: float


class _Wanderer:
    """Walks through a map in god mode towards where the view is deep, turning at random and a lot when stuck."""

    def __init__(self, job: _Job) -> None:
        self.rng = np.random.default_rng(job.seed)
        self.game = _open_game(job)
        self.turn = 0.0
        self._start_episode()

    def _start_episode(self) -> None:
        if self.game.is_episode_finished():
            self.game.set_seed(int(self.rng.integers(2**31)))
            self.game.new_episode()
        self.game.send_game_command("god")
        self.game.send_game_command("give keys")  # doors open, and nothing is written over the view about a missing key
        self.places = [(o.position_x, o.position_y) for o in self.game.get_state().objects]
        self.position, self.steps = (0.0, 0.0), 0

    def frames(self) -> Iterator[tuple[np.ndarray, float]]:
        """Screens, uint8 [h, w, 3], with the median depth of their middle. Ends only with the caller."""
        while True:
            if self.steps % STEPS_PER_PLACE == 0:
                x, y = self.places[self.rng.integers(len(self.places))]
                self.game.send_game_command(f"warp {x:.0f} {y:.0f}")
                self.turn = self.rng.uniform(-180, 180)
            self.game.make_action(self._action(), FRAME_SKIP)
            self.steps += 1
            if self.game.is_episode_finished():
                self._start_episode()
                continue
            state = self.game.get_state()
            self._steer(state.depth_buffer, tuple(state.game_variables))
            yield state.screen_buffer, self.depth

    def _action(self) -> list[float]:
        """Forward, run, use (opens doors), turn in degrees per tic."""
        forward, run = self.rng.random() < 0.9, self.rng.random() < 0.5
        return [float(forward), float(run), float(self.steps % 4 == 0), self.turn / FRAME_SKIP]

    def _steer(self, depth: np.ndarray, position: tuple[float, float]) -> None:
        """Sets the next turn, degrees to the right, from the depth buffer [h, w] and the way made."""
        middle = depth[depth.shape[0] // 3 : -(depth.shape[0] // 3)]
        left, ahead, right = (float(np.median(part)) for part in np.array_split(middle, 3, axis=1))
        self.depth = float(np.median(middle))
        moved = float(np.hypot(position[0] - self.position[0], position[1] - self.position[1]))
        self.position = position
        if moved < 8 or ahead < NEAR:
            self.turn = self.rng.uniform(60, 180) * (1 if right > left else -1)
        else:
            wanted = 10.0 * (right - left) / (right + left + 1)
            self.turn = 0.5 * max(-30.0, min(30.0, self.turn)) + wanted + self.rng.normal(0, 8)


def _open_game(job: _Job) -> Any:
    """A ViZDoom game on the job's map: no weapon, no display, no messages, a depth buffer, seeded."""
    import vizdoom

    directory = Path(vizdoom.__file__).parent
    game = vizdoom.DoomGame()
    game.set_doom_game_path(str(directory / job.source.wad))
    if job.source.scenario:
        game.set_doom_scenario_path(str(directory / "scenarios" / job.source.scenario))
    game.set_doom_map(job.source.map)
    game.set_doom_config_path("vizdoom.ini")
    sizes = (r for r in RESOLUTIONS if r[0] >= 2 * job.width and r[1] >= 2 * job.height)
    width, height = next(sizes, RESOLUTIONS[-1])
    game.set_screen_resolution(getattr(vizdoom.ScreenResolution, f"RES_{width}X{height}"))
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_depth_buffer_enabled(True)
    game.set_objects_info_enabled(True)
    game.set_window_visible(False)
    game.add_game_args("+con_midtime 0.03 +cl_showsecretmessage 0")
    for part in ("hud", "weapon", "crosshair", "messages", "screen_flashes"):
        getattr(game, f"set_render_{part}")(False)
    buttons = vizdoom.Button
    game.set_available_buttons([buttons.MOVE_FORWARD, buttons.SPEED, buttons.USE, buttons.TURN_LEFT_RIGHT_DELTA])
    game.set_available_game_variables([vizdoom.GameVariable.POSITION_X, vizdoom.GameVariable.POSITION_Y])
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_doom_skill(3)
    game.set_seed(job.seed % 2**31)
    game.init()
    return game


def _shrink(screen: np.ndarray, height: int, width: int) -> np.ndarray:
    """The largest centered part of uint8 [h, w, 3] with the new aspect, averaged over areas to [height, width, 3]."""
    h, w = screen.shape[:2]
    part_w, part_h = min(w, h * width / height), min(h, w * height / width)
    box = ((w - part_w) / 2, (h - part_h) / 2, (w + part_w) / 2, (h + part_h) / 2)
    return np.asarray(Image.fromarray(screen).resize((width, height), Image.Resampling.BOX, box))


@dataclass
class _Counts:
    """What became of the frames that were looked at."""

    kept: int = 0
    duplicates: int = 0
    walls: int = 0


def _wander(job: _Job, counts: _Counts) -> Iterator[np.ndarray]:
    """Kept frames of a job, uint8 [height, width, 3]. May end early when the map has too little to see."""
    wanderer = _Wanderer(job)
    recent: deque[np.ndarray] = deque(maxlen=REMEMBERED)
    try:
        for looked_at, (screen, depth) in enumerate(wanderer.frames()):
            if counts.kept == job.count or looked_at > 10 * job.count + 200:
                return
            if depth < job.near and wanderer.rng.random() > NEAR_SHARE:
                counts.walls += 1
                continue
            frame = _shrink(screen, job.height, job.width)
            thumbnail = np.asarray(Image.fromarray(frame).resize((16, 9), Image.Resampling.BOX), dtype=np.float32)
            if recent and np.abs(np.stack(recent) - thumbnail).mean((1, 2, 3)).min() < job.min_difference:
                counts.duplicates += 1
                continue
            recent.append(thumbnail)
            counts.kept += 1
            yield frame
    finally:
        wanderer.game.close()


def _worker(connection: Connection, directory: Path) -> None:
    """Takes jobs, sends blocks of frames, then `_Counts`, or a str that says why a map failed. Ends with its parent."""
    signal.signal(signal.SIGTERM, exit_on_sigterm)
    os.chdir(directory)  # where ViZDoom leaves its files
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            _capture_map(connection.recv(), connection)


def _capture_map(job: _Job, connection: Connection) -> None:
    counts, block = _Counts(), []
    try:
        for frame in _wander(job, counts):
            block.append(frame)
            if len(block) == BLOCK:
                connection.send(np.stack(block))
                block = []
    except OSError:
        raise
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
        return
    if block:
        connection.send(np.stack(block))
    connection.send(counts)


# ---------------------------------------------------------------------------------------------------------------------
# ViZDoom: the parent process


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
    ViZDoom twice is skipped, named in the manifest, and made up for by the others. `progress` gets the frames so far.
    Raises ValueError for settings out of range, without ViZDoom, when `output` is not empty, or on a full disk.
    """
    vizdoom_version = _check_doom(num_frames, height, width, workers)
    quotas = _quotas(num_frames)
    size = workers or len(os.sched_getaffinity(0))
    with FrameSetWriter(output, height=height, width=width) as writer:
        with _Pool(min(size, len(quotas)), _worker, writer.scratch, more=np.ndarray) as pool:
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
    """Returns ViZDoom's version. Raises ValueError."""
    try:
        import vizdoom
    except ImportError as error:
        raise ValueError("ViZDoom is not installed; pip install 'vaegan-search[doom]'") from error
    if num_frames < 40:
        raise ValueError(f"num_frames must be at least 40, got {num_frames}; ask for more frames")
    check_size(height, width)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}; leave it out for one per core")
    return str(vizdoom.__version__)


class _DoomCapture:
    """Fills the quotas: what a map does not give in a round is asked of the others of its split in the next."""

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
        self.totals = _Counts()

    def run(self, pool: _Pool) -> None:
        wanted, number = self.quotas, 0
        while wanted:
            jobs = [self._job(source, count, number) for source, count in wanted.items()]
            again = self._round(pool, jobs)
            for job, reason in self._round(pool, list(again)).items():
                self._skip(job.source, reason)
            wanted, number = self._missing(), number + 1

    def _round(self, pool: _Pool, jobs: list[_Job]) -> dict[_Job, str]:
        """Takes what the jobs give; returns those that crashed, with the reason, as if they had not been tried.

        ViZDoom now and then crashes when several start at once, and the same map is fine the next time.
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

    def _job(self, source: DoomMap, count: int, number: int) -> _Job:
        """Round `number` (from 0) is less picky than the one before; from the third on every frame is good enough."""
        seed = np.random.SeedSequence([self.seed, zlib.crc32(source.name.encode()), number]).generate_state(1)[0]
        picky = max(0.0, 1 - number / 2)
        return _Job(source, count, self.height, self.width, int(seed), MIN_DIFFERENCE * picky, NEAR * picky)

    def _path(self, source: DoomMap) -> Path:
        return self.scratch / f"{source.name.replace('/', '-')}.raw"

    def _take(self, job: _Job, message: np.ndarray | _Counts) -> None:
        if isinstance(message, np.ndarray):
            with self._path(job.source).open("ab") as file:
                file.write(message.data)
            self.captured[job.source] += len(message)
            self.progress(sum(self.captured.values()))
        else:
            self.totals.duplicates += message.duplicates
            self.totals.walls += message.walls

    def _missing(self) -> dict[DoomMap, int]:
        """Frames still to capture, shared evenly among the healthy maps of the split. Raises ValueError without any."""
        missing: dict[DoomMap, int] = {}
        for split in ("train", "test"):
            maps = [m for m in self.quotas if m.split == split]
            short = sum(self.quotas[m] - self.captured[m] for m in maps)
            healthy = [m for m in maps if m.name not in self.skipped]
            if short and not healthy:
                raise ValueError(f"every {split} map failed in ViZDoom; the reasons: {self.skipped}")
            missing |= (
                {m: n for m, n in zip(healthy, _split_evenly(short, len(healthy)), strict=True) if n} if short else {}
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
