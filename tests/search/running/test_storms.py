"""Sweeps in storms: drivers, workers, disks, clocks and MLflow fail at any moment, by a seed that a failure names.

python tests/search/running/test_storms.py 200 10200     many more
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

from asked import NORM, SCHEME
from lives import Simulation
from storms import weather
from sweeps import BASELINES, make_sweep

from search.journal.journal import Journal
from search.journal.meta import Meta
from vaegan_core.evaluation import PIXEL_MSE

SEEDS, AT_ONCE = 200, 20
BASE = {"frames": "frames", "model": {"latent_dim": 4, "width": 8}, "train": {"steps": 120}, "evaluate": {"every": 40}}
BASE["loss"] = {"kl": {"control": "fixed"}}
ASHA = {"name": "asha", "min_steps": 40, "reduction_factor": 2, "audit": 0.1}
SWEEPS: list[dict[str, Any]] = [
    {"sampler": {"name": "tpe", "startup_trials": 3}, "scheduler": ASHA, "budget": {"trials": 8}},
    {"sampler": {"name": "random"}, "scheduler": ASHA | {"metric": PIXEL_MSE}, "budget": {"trials": 6}, "retries": 2},
    {
        "sampler": {"name": "qmc"},
        "scheduler": {"name": "median", "min_steps": 40, "min_trials": 2, "metric": PIXEL_MSE},
        "budget": {"trials": 6},
    },
    {"scheduler": {"name": "none"}, "budget": {"trials": 4}, "confirm": {"top": 1, "seeds": 2}, "retries": 0},
    {
        "sampler": {"name": "random"},
        "scheduler": ASHA,
        "budget": {"trials": 3},
        "questions": {"norm": NORM, "scheme": SCHEME},
        "blocks": {"at_least": 2, "at_most": 2},
    },
]


def storm(seed: int, directory: Path) -> int:
    sweep = make_sweep(base=BASE, resources={"cpu": 1, "gpu": 0.5}, **SWEEPS[seed % len(SWEEPS)])
    directory.mkdir()
    simulation = Simulation(sweep, directory, slots=1 + seed % 3)
    journal = Journal(simulation.path)
    journal.set_meta(Meta.BASELINES, json.dumps(BASELINES))
    journal.set_meta(Meta.FRAMES, "frames")
    journal.close()
    return weather(simulation, seed)


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_no_storm_loses_or_invents_anything(first: int, tmp_path: Path) -> None:
    lives = [storm(seed, tmp_path / str(seed)) for seed in range(first, first + AT_ONCE)]
    assert max(lives) > 1, "some driver has died"


if __name__ == "__main__":
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        with TemporaryDirectory() as directory:
            storm(seed, Path(directory) / "sweep")
    print(f"seeds {sys.argv[1]} to {sys.argv[2]}: nothing lost, nothing invented")
