"""The commands to look at finished runs: report, ui."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.commands.options import Name, check_is_no_directory, tracking_uri_of
from search.terminal import screen


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
        write_report(open_existing(tracking_uri_of(name) or tracking_uri()), name, path)
    screen.say(f"Report: {path}")


def ui(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Open this sweep's page.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on; default: this machine only.")] = "127.0.0.1",
) -> None:
    """Serve MLflow's web pages on the store that sweeps write to, or that the sweep NAME writes to."""
    from search.paths import tracking_uri
    from search.tracking import ui

    uri = (tracking_uri_of(name) if name else None) or tracking_uri()
    page = ui.page_of(uri, name)
    if ui.is_server(uri):
        screen.say(f"MLflow is already running; open {uri.rstrip('/')}{page}")
        return
    ui.check_free(host, port)
    screen.say(f"MLflow on {uri}: in a few seconds at http://{host}:{port}{page} (Ctrl-C ends it)")
    raise typer.Exit(ui.serve(uri, host, port))
