"""The commands to look at finished runs: report, ui."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated

import typer

from search.commands.options import check_output, tracking_uri_of
from search.terminal import Screen, errors, screen


def report(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Names of sweeps; several share one page.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: runs/sweeps/NAME/report.html.")
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON instead; - prints it.")
    ] = None,
    csv_file: Annotated[
        str | None, typer.Option("--csv", metavar="FILE", help="Write a row per trial instead; - prints them.")
    ] = None,
    no_upload: Annotated[
        bool, typer.Option("--no-upload", help="Leave MLflow as it is; else the sweep's run there gets the page.")
    ] = False,
) -> None:
    """Write one self-contained HTML page about one or several sweeps: what they found, whether to believe it, what
    mattered, and pictures."""
    from search.report.page import upload_page, write_page, write_sweep_file
    from search.report.reported import read_all
    from search.report.tables import to_csv, to_json
    from search.tracking.client import open_existing

    tables = {file: make for file, make in ((json_file, to_json), (csv_file, to_csv)) if file is not None}
    _check_outputs(output, json_file, csv_file)
    page = output or (None if tables else Path("runs/sweeps") / "+".join(names) / "report.html")
    said = errors if "-" in tables else screen  # what is printed is for a program
    with said.stage("Reading the sweeps from MLflow"):
        client = open_existing(_store_of(names))
        reported = read_all(client, names)
    for file, make in tables.items():
        _write(file, make(reported), said)
    if page is None:
        return
    with said.stage("Drawing the page"):
        write_page(client, reported, page)
        for each in reported:
            write_sweep_file(client, each.sweep)
    said.say(f"Report: {page}")
    if len(reported) == 1 and not no_upload:
        said.say(upload_page(client, reported[0], page))


def _check_outputs(output: Path | None, json_file: str | None, csv_file: str | None) -> None:
    """Raises ValueError before anything is read for files that cannot be written."""
    given = {"--output": output, "--json": json_file, "--csv": csv_file}
    files = [(option, file) for option, file in given.items() if file is not None]
    for (one, file), (other, same) in combinations(files, 2):
        if Path(file).resolve() == Path(same).resolve():
            raise ValueError(f"{one} and {other} must not write to the same file, but got {file} and {same}")
    for option, file in files:
        if str(file) != "-":
            check_output(Path(file), option)


def _store_of(names: Sequence[str]) -> str:
    """The tracking URI that all of these sweeps write to. Raises ValueError where it is not the same one."""
    from search.paths import tracking_uri
    from search.redaction import redact

    by_name = {name: tracking_uri_of(name) or tracking_uri() for name in names}
    if len(set(by_name.values())) > 1:
        places = ", ".join(f"{name} at {redact(uri)}" for name, uri in by_name.items())
        raise ValueError(f"one page must be about sweeps of one store, but got {places}; write a report of each")
    return next(iter(by_name.values()))


def _write(file: str, text: str, said: Screen) -> None:
    if file == "-":
        sys.stdout.write(text)
        return
    from vaegan_core.tensor_files import write_atomically

    write_atomically(Path(file), text.encode())
    said.say(f"Written: {file}")


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
