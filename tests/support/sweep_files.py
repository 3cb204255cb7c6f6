"""A real sweep small enough for tests, and what its stores hold afterwards."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

NAME = "small"
DIVERGING_LR = 1e6

SMALL: dict[str, Any] = {
    "name": NAME,
    "base": {
        "frames": "frames",
        "model": {"latent_dim": 8, "width": 4, "depth": 2, "encoder": {"norm": "batch"}, "decoder": {"norm": "group"}},
        "loss": {"pixel": {"weight": 1.0}, "generator": {"recon": 0.01, "prior": 0.01}},
        "train": {"steps": 80, "batch_size": 8, "log_every": 2},
        "evaluate": {"every": 20, "num_test": 32, "num_samples": 64},
    },
    "space": {
        "optimizer.autoencoder.lr": [3e-4, 3e-3, DIVERGING_LR],
        "loss.feature.recon": {"low": 0.03, "high": 1.0, "log": True},
        "loss.kl": {
            "one_of": {
                "fixed": {"sigma": {"low": 0.05, "high": 0.6, "log": True}},
                "capacity": {"gamma_sigma": 0.2, "capacity_max": {"low": 5, "high": 50, "log": True}, "ramp": 0.5},
                "adaptive": {"target": {"low": 5, "high": 50, "log": True}, "rate": 0.05},
            }
        },
    },
    "points": {
        "good": {"optimizer.autoencoder.lr": 3e-3, "loss.kl.control": "fixed", "loss.kl.sigma": 0.2},
        "bad": {"optimizer.autoencoder.lr": DIVERGING_LR, "loss.kl.control": "fixed"},
        "slow": {"optimizer.autoencoder.lr": 3e-4, "loss.kl.control": "fixed"},
    },
    "scheduler": {"name": "asha", "min_steps": 40, "reduction_factor": 2},
    "sampler": {"startup_trials": 4},
    "budget": {"trials": 8},
    "promote": {"seeds": 2, "baseline": 5},  # 80 steps beat no trivial picture
}


def prepare(directory: Path, frame_set_dir: Path, **changes: Any) -> Path:
    """`directory` with the frames and sweep.yaml in it; returns the YAML's path."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copytree(frame_set_dir, directory / "frames")
    data = copy.deepcopy(SMALL)
    for name, value in changes.items():
        node = data
        *parents, last = name.split("__")
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    path = directory / "sweep.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def prepare_steady(directory: Path, frame_set_dir: Path, **changes: Any) -> Path:
    """`prepare` for a sweep whose trials neither stop early nor diverge, with its frames at an absolute path."""
    path = prepare(directory, frame_set_dir, scheduler={"name": "none"}, **changes)
    data = yaml.safe_load(path.read_text())
    del data["points"], data["space"]["optimizer.autoencoder.lr"]
    data["base"]["frames"] = str(directory / "frames")
    path.write_text(yaml.safe_dump(data))
    return path


def environment(directory: Path) -> dict[str, str]:
    """Environment of a `vaegan` command with its stores in `directory`; only the test can use the cluster it starts."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key == "RAY_ADDRESS" or not key.startswith(("MLFLOW_", "RAY_"))
    }
    return kept | {"COLUMNS": "200", "RAY_AUTH_MODE": "disabled", "VAEGAN_TEST_DIRECTORY": str(directory)}


def vaegan(
    directory: Path, *arguments: str, check: bool = True, timeout: float = 280, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command as a user would, in `directory`, with these variables."""
    done = subprocess.run(
        command(*arguments),
        cwd=directory,
        env=environment(directory) | variables,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(
            f"vaegan {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        )
    return done


def command(*arguments: str) -> Sequence[str]:
    return [sys.executable, "-m", "search.cli", *arguments]
