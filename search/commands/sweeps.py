"""The commands that check, run, watch and stop a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from search.commands.options import Cluster, Extend, Name, Set, SweepFile
from search.terminal import console, say


def check(
    sweep: SweepFile,
    overrides: Set = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Train a few steps here, and forecast wall time, GPU-hours and disk from them."),
    ] = False,
) -> None:
    """Find every error of a sweep's YAML, and say what the sweep would do, before anything runs."""
    from search.config.load import load_sweep
    from search.preflight import describe, forecast

    loaded = load_sweep(sweep, overrides or [], need_frames=True)
    for line in describe.describe(loaded):
        say(line)
    for line in forecast.forecast(loaded, forecast.probe(loaded)) if probe else ():
        say(line)


def schema(
    kind: Annotated[str, typer.Argument(metavar="sweep|trial", help="Of which YAML files.")] = "sweep",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: the screen.")] = None,
) -> None:
    """Export the JSON Schema of the YAML files, so that editors complete and check them."""
    from search.config.schema import write_schema

    text = write_schema(kind)
    if output is None:
        print(text)
        return
    output.write_text(text + "\n")
    say(f"Schema: {output}. At the top of a YAML file: # yaml-language-server: $schema={output}")


def sweep(
    sweep: SweepFile,
    overrides: Set = None,
    cluster: Cluster = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with this very sweep if it was begun before.")
    ] = False,
    extend: Extend = None,
    warm_start: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Begin with the completed trials of an earlier sweep; repeatable."),
    ] = None,
) -> None:
    """Run a sweep: here, or on a Ray cluster. Ctrl-C stops it cleanly; `vaegan resume` goes on."""
    from search.config.load import load_sweep
    from search.journal import sweeps
    from search.strategy.warm_start import known_points

    loaded = load_sweep(sweep, overrides or [], need_frames=True)
    if warm_start and (extend or resume):
        raise ValueError("--warm-start is for a new sweep, so it cannot go with --extend or --resume")
    if extend:
        sweeps.open_sweep(loaded.config.name)
        loaded, directory = sweeps.create_or_reopen(loaded, console)
        loaded = sweeps.extend(loaded, directory, extend)
    elif resume:
        loaded, directory = sweeps.create_or_reopen(loaded, console)
    else:
        known = known_points(loaded, warm_start or [], console)
        directory = sweeps.create_sweep(loaded, console, known)
    try:
        _run(loaded, directory, cluster)
    except ValueError:
        sweeps.discard_if_untouched(directory)
        raise


def resume(
    name: Name,
    cluster: Cluster = None,
    extend: Extend = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed trials again.")] = False,
) -> None:
    """Go on with a sweep that was stopped, killed or cut off; nothing is lost and nothing done twice."""
    from search.journal import sweeps

    loaded, directory = sweeps.open_sweep(name)
    if extend:
        loaded = sweeps.extend(loaded, directory, extend)
    if retry_failed:
        numbers = sweeps.retry_failed(directory)
        say(f"To be tried again: {', '.join(map(str, numbers)) or 'none, for no trial failed'}.")
    _run(loaded, directory, cluster)


def _run(loaded: Any, directory: Path, cluster: str | None) -> None:
    from search.commands.results import print_results
    from search.running.driver import run_sweep

    try:
        stopped = run_sweep(loaded, directory, console, address=cluster)
    except KeyboardInterrupt:
        say(f"Stopped at once; trials go on from their last checkpoints with: vaegan resume {loaded.config.name}")
        raise typer.Exit(130) from None
    print_results(loaded, directory, console)
    if stopped:
        say(f"\nStopped early: {stopped}. Go on with: vaegan resume {loaded.config.name}")
        raise typer.Exit(130 if stopped == "interrupted" else 0)


def sync(name: Name) -> None:
    """Bring to MLflow what a sweep's driver could not deliver before it ended; nothing is trained."""
    from search.journal.sweeps import open_sweep
    from search.running.driver import sync_sweep

    loaded, directory = open_sweep(name)
    if not sync_sweep(loaded, directory, console):
        raise typer.Exit(1)


def stop(name: Name) -> None:
    """Stop a running sweep from another shell: its trials stop at their next evaluation, to be taken up again."""
    from search.journal.journal import Journal
    from search.journal.meta import Meta
    from search.journal.sweeps import is_running, open_sweep
    from search.paths import JOURNAL_FILE
    from search.running.stop_flag import STOP_MINUTES

    _, directory = open_sweep(name)
    if not is_running(directory):
        say(f"{name} is not running.")
        return
    journal = Journal(directory / JOURNAL_FILE)
    journal.set_meta(Meta.STOP_REQUESTED, "stopped by vaegan stop")
    journal.close()
    say(f"{name} stops when its running trials reach their next evaluation, at the latest in {STOP_MINUTES:g} minutes.")


def status(name: Name, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Say from another shell where a sweep stands."""
    import json

    from search.commands.status import read_status, status_lines

    found = read_status(name)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for line in status_lines(found):
        say(line)


def export(
    name: Name,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: runs/sweeps/NAME/optuna.db.")
    ] = None,
) -> None:
    """Write the sweep's Optuna study to a SQLite file that optuna-dashboard shows; a running sweep is not slowed."""
    from search.strategy.export import export_study

    path = export_study(name, output)
    say(f"Study: {path}. Look at it with: optuna-dashboard sqlite:///{path}")
