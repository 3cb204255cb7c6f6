"""Frames of another kind, on which questions are asked a second time: Atari games at random play, a folder each.

pip install ale-py
python tests/benchmarks/atari.py runs/atari
vaegan data images runs/atari -o runs/frames/atari --size 32x42 --seed 0
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ale_py import ALEInterface, LoggerMode, roms
from PIL import Image

# fmt: off
GAMES = [
    "alien", "asterix", "atlantis", "bank_heist", "battle_zone", "beam_rider", "boxing", "breakout", "centipede",
    "chopper_command", "crazy_climber", "demon_attack", "enduro", "fishing_derby", "freeway", "frostbite", "gopher",
    "hero", "ice_hockey", "jamesbond", "kangaroo", "krull", "kung_fu_master", "ms_pacman", "name_this_game", "pong",
    "qbert", "riverraid", "road_runner", "robotank", "seaquest", "space_invaders", "star_gunner", "tennis",
    "time_pilot", "tutankham", "up_n_down", "video_pinball", "wizard_of_wor", "zaxxon",
]
# fmt: on
FRAMES, SKIP = 150, 24
"""Frames of each game, and frames of play from one to the next: 0.4 s."""


def capture(game: str, directory: Path) -> None:
    """Writes the frames of a game; a game that is over begins again."""
    ale = ALEInterface()
    ale.setInt("random_seed", 0)
    ale.loadROM(roms.get_rom_path(game))
    actions = ale.getMinimalActionSet()
    random = np.random.default_rng(0)
    directory.mkdir(parents=True)
    for number in range(FRAMES):
        action = random.choice(actions)
        for _ in range(SKIP):
            if ale.game_over():
                ale.reset_game()
            ale.act(action)
        Image.fromarray(ale.getScreenRGB()).save(directory / f"{number:04d}.png")


if __name__ == "__main__":
    ALEInterface.setLoggerMode(LoggerMode.Error)
    for game in GAMES:
        capture(game, Path(sys.argv[1], game))
