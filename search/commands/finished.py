"""The commands for finished runs: report, promote, rerun, ui."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from search.commands.options import Name, at_store, check_is_no_directory
from search.terminal import program, screen


def report(
    name: Name,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: runs/sweeps/NAME/report.html.")
    ] = None,
) -> None:
    """Write one self-contained HTML page about a sweep: results, Pareto front, curves, image grids."""
    from search.paths import tracking_uri
    from search.report.page import write_report
    from search.tracking.client import open_existing

    path = output or Path("runs/sweeps") / name / "report.html"
    check_is_no_directory(path)
    with screen.stage("Reading the sweep from MLflow"):
        write_report(open_existing(_tracking_uri_of(name) or tracking_uri()), name, path)
    screen.say(f"Report: {path}")


def promote(
    name: Name,
    model: Annotated[str | None, typer.Option(help="Registered model; default: vaegan-NAME.")] = None,
) -> None:
    """Register the best full-fidelity trial's model in the MLflow registry and move the alias `champion` to it."""
    from search.paths import tracking_uri
    from search.promotion.promote import promote as promote_sweep
    from search.tracking.client import open_existing

    uri = _tracking_uri_of(name) or tracking_uri()
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


def rerun(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="MLflow run of a trial.")],
    frames: Annotated[str | None, typer.Option(metavar="DIR", help="Where its frame set is now.")] = None,
    inception_weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where its Inception weights are now, if it used any.")
    ] = None,
) -> None:
    """Repeat a trial from its MLflow run alone, without Ray, and compare every number."""
    from search.local.rerun import prepare_rerun
    from search.local.rerun import rerun as rerun_trial
    from search.paths import tracking_uri
    from search.tracking.client import open_existing

    client = open_existing(tracking_uri())
    config, frame_set, moved = prepare_rerun(client, run_id, frames, inception_weights)
    if moved:
        screen.say(f"The trial ran on another machine ({moved}), so its numbers cannot be repeated bit for bit here.")
    with screen.progress("Repeating the training", config.train.steps) as advance:
        result = rerun_trial(client, run_id, config, frame_set, advance, screen.say)
    screen.say(f"The rerun's curves are in MLflow run {result.run_id}, below the trial's run.")
    if result.first is None:
        screen.say(f"Identical: all {result.compared} curve points are the same, bit for bit.")
        return
    first = result.first
    screen.say(
        f"Different: {result.differing} of {result.compared} curve points; first at step {first.step}, {first.key}: "
        f"{first.before} then, {first.now} now."
    )
    for key, before in result.before.items() if moved else ():
        screen.say(f"  {key}: {before} then, {result.metrics[key]:.6g} now")
    raise typer.Exit(1)


def ui(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Open this sweep's page.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on; default: this machine only.")] = "127.0.0.1",
) -> None:
    """Serve MLflow's web pages on the store that sweeps write to, or that the sweep NAME writes to."""
    from search.paths import tracking_uri
    from search.tracking import ui

    uri = (_tracking_uri_of(name) if name else None) or tracking_uri()
    page = ui.page_of(uri, name)
    if ui.is_server(uri):
        screen.say(f"MLflow is already running; open {uri.rstrip('/')}{page}")
        return
    ui.check_free(host, port)
    screen.say(f"MLflow on {uri}: in a few seconds at http://{host}:{port}{page} (Ctrl-C ends it)")
    raise typer.Exit(ui.serve(uri, host, port))


def _tracking_uri_of(name: str) -> str | None:
    """Where a sweep on this machine keeps its runs; None for a sweep of another machine."""
    from search.journal.sweeps import open_sweep
    from search.paths import tracking_uri

    try:
        configured = open_sweep(name)[0].config.tracking.uri
    except ValueError:
        return None
    return tracking_uri(configured)
