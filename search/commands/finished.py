"""The commands for finished runs: report, promote, rerun, ui."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.commands.options import Name
from search.terminal import console, progress, say


def report(
    name: Name,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: runs/sweeps/NAME/report.html.")
    ] = None,
) -> None:
    """Write one self-contained HTML page about a sweep: results, front, curves, image grids."""
    from search.paths import tracking_uri
    from search.report.page import write_report
    from search.terminal import stage
    from search.tracking.client import open_existing

    path = output or Path("runs/sweeps") / name / "report.html"
    with stage(console, "Reading the sweep from MLflow"):
        write_report(open_existing(_tracking_uri_of(name) or tracking_uri()), name, path)
    say(f"Report: {path}")


def promote(
    name: Name,
    model: Annotated[str | None, typer.Option(help="Registered model; default: vaegan-NAME.")] = None,
) -> None:
    """Register the best full-fidelity trial's model in the MLflow registry and move the alias `champion` to it."""
    from search.paths import tracking_uri
    from search.promotion.promote import promote as promote_sweep
    from search.terminal import stage
    from search.tracking.client import open_existing

    with stage(console, "Registering the best trial's model"):
        promoted = promote_sweep(open_existing(_tracking_uri_of(name) or tracking_uri()), name, model_name=model)
    confirmation = promoted.trial.confirmation
    console.print(
        f"Trial {promoted.trial.number} is version {promoted.version} of {promoted.model}, alias champion.\n"
        f"{confirmation.in_words() if confirmation else 'One seed only: not confirmed (confirm: {top, seeds})'}.\n"
        f'Load it: mlflow.pyfunc.load_model("models:/{promoted.model}@champion")',
        highlight=False,
    )


def rerun(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="MLflow run of a trial.")],
    frames: Annotated[str | None, typer.Option(metavar="DIR", help="Where its frame set lies now.")] = None,
    inception_weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where the weights of its Inception FID lie now, if it had one.")
    ] = None,
) -> None:
    """Train a trial again from its MLflow run alone, without Ray, and say whether the numbers are identical."""
    from search.local.rerun import prepare_rerun
    from search.local.rerun import rerun as rerun_trial
    from search.paths import tracking_uri
    from search.tracking.client import open_existing

    client = open_existing(tracking_uri())
    config, frame_set = prepare_rerun(client, run_id, frames, inception_weights)
    with progress("Training again", config.train.steps) as advance:
        result = rerun_trial(client, run_id, config, frame_set, advance)
    say(f"Its own curves are in MLflow run {result.run_id}, below that of the trial.")
    if result.first is None:
        say(f"Identical: all {result.compared} curve points are the same, bit for bit.")
        return
    first = result.first
    console.print(
        f"Different: {result.differing} of {result.compared} curve points; first at step {first.step}, {first.key}: "
        f"{first.before} then, {first.now} now.",
        highlight=False,
    )
    raise typer.Exit(1)


def ui(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of a sweep to go to.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on; other machines only if you say so.")] = "127.0.0.1",
) -> None:
    """Open MLflow's web pages on the store that sweeps write to, or that the sweep NAME writes to."""
    from search.paths import tracking_uri
    from search.redaction import redact
    from search.tracking import ui

    uri = (_tracking_uri_of(name) if name else None) or tracking_uri()
    page = ui.page_of(uri, name)
    if ui.is_server(uri):
        say(f"MLflow runs already; open {redact(uri).rstrip('/')}{page}")
        return
    ui.check_free(host, port)
    say(f"MLflow on {redact(uri)}: in a few seconds at http://{host}:{port}{page} (Ctrl-C ends it)")
    raise typer.Exit(ui.serve(uri, host, port))


def _tracking_uri_of(name: str) -> str | None:
    """Where a sweep of this machine keeps its runs; None when it is not of this machine."""
    from search.journal.sweeps import open_sweep
    from search.paths import tracking_uri

    try:
        return tracking_uri(open_sweep(name)[0].config.tracking.uri)
    except ValueError:
        return None
