"""The command `vaegan train`."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from search.commands.options import Set
from search.names import Artifact
from search.terminal import screen


def train(
    trial: Annotated[Path, typer.Argument(metavar="TRIAL.yaml", help="The configuration.")],
    overrides: Set = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Default: runs/trials/NAME-TIME.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in --output.")] = False,
    point: Annotated[str | None, typer.Option(metavar="NAME", help="Train this named point of a sweep's YAML.")] = None,
) -> None:
    """Train one VAE-GAN here, without Ray; curves and image grids go to MLflow, checkpoint and model to a directory."""
    from search.local.train import load_single, train_single

    if resume and output is None:
        raise ValueError("--resume needs --output: the directory of the training to continue")
    config = load_single(trial, overrides or [], point, need_frames=True)
    directory = output or default_directory(point or trial.stem)
    try:
        with screen.progress("Training", config.train.steps) as advance:
            train_single(config, directory, resume=resume, progress=advance, say=screen.say)
    except KeyboardInterrupt:
        if (directory / Artifact.CONFIG).is_file():
            screen.say(f"Continue with: {again(trial, overrides or [], point, directory)}")
        raise
    screen.say(f"Checkpoint and weights are in {directory}; view the curves with: vaegan ui")


def default_directory(name: str) -> Path:
    """Where a training of that name goes, whatever is in the name."""
    safe = re.sub(r"[^\w.-]+", "-", name).lstrip(".-")
    return Path("runs/trials") / f"{safe}-{time.strftime('%Y%m%d-%H%M%S')}"


def again(trial: Path, overrides: list[str], point: str | None, directory: Path) -> str:
    """The command that continues a training from its checkpoint in `directory`."""
    options = [word for override in overrides for word in ("--set", override)]
    options += ["--point", point] if point else []
    return shlex.join(["vaegan", "train", str(trial), *options, "--resume", "--output", str(directory)])
