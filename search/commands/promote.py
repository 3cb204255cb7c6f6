"""The command `vaegan promote`, and the lines it ends with."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from search.commands.options import Name, at_store, tracking_uri_of
from search.terminal import program, screen


def promote(
    name: Name,
    model: Annotated[str | None, typer.Option(help="Registered model; default: vaegan-NAME.")] = None,
) -> None:
    """Register the best full-fidelity trial's model in the MLflow registry and move the alias `champion` to it."""
    from search.paths import tracking_uri
    from search.promotion.promote import promote as promote_sweep
    from search.tracking.client import open_existing

    uri = tracking_uri_of(name) or tracking_uri()
    stores = at_store(uri), at_store(uri, mlflow=True)  # before MLflow sets the variable itself
    with screen.stage("Registering the best trial's model"):
        promoted = promote_sweep(open_existing(uri), name, model_name=model)
    confirmation = promoted.trial.confirmation
    unconfirmed = "Trained with one seed only, not confirmed (set confirm: {top, seeds})"
    end = "" if promoted.changed else ", as before: nothing changed"
    screen.say(
        f"Trial {promoted.trial.number} is version {promoted.version} of {promoted.model}, alias champion{end}.\n"
        f"{confirmation.in_words() if confirmation else unconfirmed}."
    )
    for line in how_to_use(stores, promoted.model, promoted.size):
        screen.say(line)


def how_to_use(stores: tuple[str, str], model: str, size: tuple[int, int]) -> Iterator[str]:
    """Lines to type, in a fresh shell too, with a registered model of frames of `size` (H, W); `stores` come before
    commands of ours, and of MLflow."""
    (ours, store), name = stores, f"models:/{model}@champion"
    python, mlflow = program("python"), program("mlflow")
    height, width = size
    code = f'import mlflow; print(mlflow.pyfunc.load_model("{name}"))'
    frame = f"import json, numpy; frame = numpy.zeros((1, {height}, {width}, 3), int).tolist()"
    asked = '{"inputs": frame, "params": {"mode": "sample", "seed": 1}}'
    params = "params mode (reconstruct, sample, encode), seed and sampler"
    yield f"It takes frames, uint8 [n, {height}, {width}, 3], and {params}."
    yield f"See what it makes:\n  {ours}vaegan sample {name} -o runs/samples --grid"
    yield f"Load it:\n  {store}{python} -c {shlex.quote(code)}"
    path = "" if mlflow == "mlflow" else f'PATH={shlex.quote(str(Path(sys.prefix) / "bin"))}:"$PATH" '
    yield f"Serve it:\n  {store}{path}mlflow models serve -m {name} --env-manager local --port 5001"
    yield (
        f"and ask it for a sample:\n  {python} -c {shlex.quote(f'{frame}; print(json.dumps({asked}))')} | "
        "curl -s http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' -d @-"
    )
