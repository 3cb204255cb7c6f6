"""A worker process that wanders through one map and keeps frames that differ."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vaegan_core.data.doom.maps import DoomMap
from vaegan_core.data.writer import exit_on_sigterm

FRAME_SKIP = 8
"""Game tics (1/35 s) per frame."""
STEPS_PER_PLACE = 30
"""Frames after which the wanderer is moved to another object of the map."""
NEAR, NEAR_SHARE = 4.0, 0.1
"""Frames whose middle is nearer than `NEAR` (units of the depth buffer) show walls; only this share is kept."""
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
class MapJob:
    """Capture `count` frames of `source`; the picky rounds drop walls and duplicates, the last one keeps all."""

    source: DoomMap
    count: int
    height: int
    width: int
    seed: int
    min_difference: float
    near: float


class _Wanderer:
    """Walks through a map in god mode toward deep views, turning at random, and turning a lot when stuck."""

    def __init__(self, job: MapJob) -> None:
        self.rng = np.random.default_rng(job.seed)
        self.game = _open_game(job)
        self.turn = 0.0
        self._start_episode()

    def _start_episode(self) -> None:
        if self.game.is_episode_finished():
            self.game.set_seed(int(self.rng.integers(2**31)))
            self.game.new_episode()
        self.game.send_game_command("god")
        self.game.send_game_command("give keys")  # doors open, and no message about a missing key covers the view
        self.places = [(o.position_x, o.position_y) for o in self.game.get_state().objects]
        self.position, self.steps = (0.0, 0.0), 0

    def frames(self) -> Iterator[tuple[np.ndarray, float]]:
        """Screens, uint8 [h, w, 3], with the median depth of their middle; without end."""
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
        """Sets the next turn, degrees to the right, from the depth buffer [h, w] and the distance covered."""
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


def _open_game(job: MapJob) -> Any:
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
class Counts:
    """Numbers of frames kept and dropped."""

    kept: int = 0
    duplicates: int = 0
    walls: int = 0


def _wander(job: MapJob, counts: Counts) -> Iterator[np.ndarray]:
    """The frames to keep for a job, uint8 [height, width, 3]. May end early when a map offers too few."""
    wanderer = _Wanderer(job)
    recent: deque[np.ndarray] = deque(maxlen=REMEMBERED)
    try:
        for seen, (screen, depth) in enumerate(wanderer.frames()):
            if counts.kept == job.count or seen > 10 * job.count + 200:
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


def worker(connection: Connection, directory: Path) -> None:
    """Takes jobs; sends blocks of frames, then `Counts`, or a str that says why a map failed. Ends with its parent."""
    signal.signal(signal.SIGTERM, exit_on_sigterm)
    os.chdir(directory)  # where ViZDoom writes its files
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            _capture_map(connection.recv(), connection)


def _capture_map(job: MapJob, connection: Connection) -> None:
    counts, block = Counts(), []
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
