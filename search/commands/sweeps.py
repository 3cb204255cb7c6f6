"""The commands that check, run, watch and stop a sweep."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.advice import resume_command
from search.commands.cluster import resume_sweep, show_status, stop_job, submit_sweep
from search.commands.options import Cluster, Extend, Name, Server, Set, Storage, SweepFile, check_output
from search.json_text import json_text
from search.terminal import program, screen

if TYPE_CHECKING:
    from search.config.sweep import Sweep
    from search.running.driver import Ground
    from search.running.sweep_frames import SweepFrames


def check(
    sweep: SweepFile,
    overrides: Set = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Train a few steps here and forecast wall time, GPU-hours and disk use.")
    ] = False,
) -> None:
    """List every error in a sweep's YAML and say what the sweep would do, before anything runs."""
    from search.config.load import load_sweep
    from search.preflight.describe import describe

    loaded = load_sweep(sweep, overrides or [], need_frames=True)
    for line in describe(loaded):
        screen.say(line)
    if probe:
        from search.preflight import forecast

        for line in forecast.forecast(loaded, forecast.probe(loaded)):
            screen.say(line)


def schema(
    kind: Annotated[str, typer.Argument(metavar="sweep|trial", help="Kind of YAML file.")] = "sweep",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: the screen.")] = None,
) -> None:
    """Write the JSON Schema of the YAML files, with which editors complete and check them."""
    from search.config.schema import write_schema

    text = write_schema(kind)
    if output is None:
        print(text)
        return
    check_output(output)
    output.write_text(text + "\n")
    screen.say(f"Schema: {output}. Put this at the top of a YAML file: # yaml-language-server: $schema={output}")


def sweep(
    sweep: SweepFile,
    overrides: Set = None,
    cluster: Cluster = None,
    storage: Storage = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue this sweep if it exists already.")] = False,
    extend: Extend = None,
    warm_start: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Start with the completed trials of an earlier sweep; repeatable."),
    ] = None,
) -> None:
    """Run a sweep, here or on a Ray cluster. Ctrl-C stops it cleanly; `vaegan resume` continues it."""
    from search.cluster.server import check_address, is_job_server
    from search.config.load import load_sweep
    from search.journal import sweeps
    from search.paths import storage_uri
    from search.preflight.machine import check_machine
    from search.running.driver import Ground
    from search.storage.stored_sweep import is_stored, storage_of

    loaded = load_sweep(sweep, overrides or [], need_frames=True)
    if warm_start and (extend or resume):
        raise ValueError("--warm-start is only for a new sweep; drop it, or drop --extend and --resume")
    check_address(cluster)
    uri = storage_uri(storage, loaded.config.storage)
    if is_job_server(cluster):
        assert cluster is not None
        if resume or extend or warm_start:
            raise ValueError(
                "--resume, --extend and --warm-start are not for a sweep that is submitted; continue one with vaegan "
                f"resume {loaded.config.name} --cluster {cluster}"
            )
        submit_sweep(loaded, cluster, uri)
        return
    if cluster is None:
        check_machine(loaded)
    directory = sweeps.directory_of(loaded.config.name)
    exists = sweeps.exists(directory)
    if extend or (resume and (exists or is_stored(uri, directory.name))):
        uri = storage_of(directory.name, storage if exists else uri)
        if not uri:
            sweeps.open_sweep(directory.name)  # or there is none

        def load() -> Sweep:
            reopened = sweeps.reopen(loaded)
            return sweeps.extend(loaded.config.name, extend) if extend else reopened

        _run(load, directory, Ground(cluster, uri))
        return
    frames = _create(loaded, warm_start or [], uri)
    try:
        _run(lambda: loaded, directory, Ground(cluster, uri), frames)
    except typer.Exit:
        raise
    except Exception:
        sweeps.set_aside_if_untouched(directory)
        raise


def _create(loaded: Sweep, warm_start: list[str], storage: str) -> SweepFrames:
    """Writes the journal of a new sweep, and its frames to the storage; returns them."""
    from search.journal import sweeps
    from search.running.sweep_frames import open_frames
    from search.storage.stored_sweep import check_name_is_free_in, store_frames
    from search.strategy.warm_start import known_points

    sweeps.check_name_is_free(loaded)
    check_name_is_free_in(storage, loaded.config.name)
    known = []
    for earlier in warm_start:
        points, completed = known_points(loaded, earlier)
        screen.say(f"{len(points)} of {completed} completed trials of {earlier} lie in the space.")
        known += points
    frames = open_frames(loaded, screen)
    store_frames(storage, frames.frame_set, screen)
    sweeps.create_sweep(loaded, frames.frame_set, frames.features, known, storage)
    return frames


def resume(
    name: Name,
    cluster: Cluster = None,
    storage: Storage = None,
    extend: Extend = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Retry failed trials.")] = False,
) -> None:
    """Continue a sweep that was stopped, killed or cut off; nothing is lost and nothing is done twice."""
    from search.cluster.server import check_address, is_job_server
    from search.journal import sweeps
    from search.paths import storage_uri
    from search.running.driver import Ground
    from search.storage.stored_sweep import storage_of

    check_address(cluster)
    if cluster is not None and is_job_server(cluster):
        more = [*(["--extend", str(extend)] if extend else []), *(["--retry-failed"] if retry_failed else [])]
        resume_sweep(name, cluster, storage_uri(storage), more)
        return
    directory = sweeps.directory_of(name)
    uri = storage_of(name, storage)
    if not uri:
        sweeps.open_sweep(name)  # or there is none

    def load() -> Sweep:
        if retry_failed:
            numbers = sweeps.retry_failed(directory)
            screen.say(f"Trials to retry: {', '.join(map(str, numbers))}." if numbers else "No trial has failed.")
        return sweeps.extend(name, extend) if extend else sweeps.open_sweep(name)[0]

    _run(load, directory, Ground(cluster, uri))


def _run(load: Callable[[], Sweep], directory: Path, ground: Ground, frames: SweepFrames | None = None) -> None:
    from search.commands.live import SweepView
    from search.commands.results import print_results, try_to_write_report
    from search.paths import REPORT_FILE
    from search.running.driver import run_sweep

    name = directory.name
    try:
        end = run_sweep(load, directory, screen, SweepView, ground=ground, frames=frames)
    except KeyboardInterrupt:
        screen.say(f"Stopped at once; trials continue from their last checkpoints with: {resume_command(name)}")
        raise typer.Exit(130) from None
    if end.delivered and (end.ran or not (directory / REPORT_FILE).is_file()):
        try_to_write_report(end.sweep, directory, screen)
    print_results(end.sweep, directory, screen)
    if end.stopped:
        screen.say(f"\nStopped early: {end.stopped}. Continue with: {resume_command(name)}")
        raise typer.Exit(130 if end.stopped == "interrupted" else 0)


def sync(name: Name) -> None:
    """Send MLflow what a sweep could not deliver while it ran; nothing is trained."""
    from search.commands.results import try_to_write_report
    from search.journal.sweeps import open_sweep
    from search.running.driver import sync_sweep
    from search.storage.stored_sweep import storage_of

    loaded, directory = open_sweep(name)
    if not sync_sweep(loaded, directory, screen, storage=storage_of(name, None)):
        raise typer.Exit(1)
    try_to_write_report(loaded, directory, screen)


def stop(name: Name, cluster: Server = None) -> None:
    """Stop a running sweep from another shell: its trials stop at their next evaluation and can be resumed."""
    if cluster is not None:
        stop_job(name, cluster)
        return
    from search.journal.sweeps import STOP_MINUTES, open_sweep, request_stop
    from search.lease import is_running

    _, directory = open_sweep(name)
    if not is_running(directory):
        screen.say(f"{name} is not running.")
        return
    request_stop(directory)
    screen.say(f"{name} stops when its running trials reach their next evaluation, within {STOP_MINUTES:g} minutes.")


def status(
    name: Name,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    cluster: Server = None,
) -> None:
    """Show from another shell how far a sweep is."""
    if cluster is not None:
        show_status(name, cluster, as_json=as_json)
        return
    from search.commands.status import read_status, status_lines

    found = read_status(name)
    if as_json:
        print(json_text(found, indent=2))
        return
    for line in status_lines(found):
        screen.say(line)


def export(
    name: Name,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: runs/sweeps/NAME/optuna.db.")
    ] = None,
) -> None:
    """Write the sweep's Optuna study to a SQLite file for optuna-dashboard; a running sweep is not slowed down."""
    from search.strategy.export import export_study

    if output is not None:
        check_output(output)
    path = export_study(name, output)
    screen.say(how_to_view(path))


def how_to_view(study: Path) -> str:
    """What to type to look at an exported study; optuna-dashboard is no part of this environment."""
    python = program("python")
    viewer = Path(python).with_name("optuna-dashboard")
    installing = "" if find_spec("optuna_dashboard") else f"  {python} -m pip install optuna-dashboard\n"
    return f"Study: {study}. To view it:\n{installing}  {viewer} {shlex.quote(f'sqlite:///{study}')}"
