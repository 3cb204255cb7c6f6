"""The command `vaegan`. Argument handling and words only; the work is done by the modules it calls."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from search.commands.data import data
from search.terminal import console, progress, say


class Commands(TyperGroup):
    """The commands; Ctrl-C ends any of them with a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            Console(stderr=True).print("Stopped.", highlight=False)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Hyperparameter search for VAE-GANs: **Ray Tune** schedules, **Optuna** chooses, **MLflow** keeps the curves.",
    epilog="Start with `make sweep`, or: `vaegan data doom -o runs/frames/doom`, then `vaegan sweep SWEEP.yaml`.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.print(f"vaegan-search {version('vaegan-search')}", highlight=False)
        raise typer.Exit


@app.callback()
def vaegan(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    pass


app.add_typer(data, name="data")

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the YAML file; repeatable.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a sweep.")]
SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", help="A running Ray cluster's head, or auto for this machine's; else Ray runs here."
    ),
]
Extend = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="So many trials more than its budget; what was done is kept.")
]


@app.command()
def train(
    trial: Annotated[Path, typer.Argument(metavar="TRIAL.yaml", help="The configuration.")],
    overrides: Set = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Default: runs/trials/NAME-TIME.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --output.")] = False,
    point: Annotated[
        str | None, typer.Option(metavar="NAME", help="TRIAL.yaml is a sweep; train this named point of it.")
    ] = None,
) -> None:
    """Train one VAE-GAN here, without Ray; curves and image grids go to MLflow, checkpoint and model to a directory."""
    from search.local.train import load_single, train_single

    if resume and output is None:
        raise ValueError("--resume needs --output: the directory of the training to go on with")
    config = load_single(trial, overrides or [], point)
    directory = output or Path("runs/trials") / f"{point or trial.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    with progress("Training", config.train.steps) as advance:
        train_single(config, directory, resume=resume, progress=advance, say=say)
    say(f"Checkpoint and weights are in {directory}; look at the curves with: vaegan ui")


@app.command()
def check(
    sweep: SweepFile,
    overrides: Set = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Train a few steps here, and forecast wall time, GPU-hours and disk from them."),
    ] = False,
) -> None:
    """Find every error of a sweep's YAML, and say what the sweep would do, before anything runs."""
    from search.config.sweep_config import load_sweep
    from search.preflight import describe

    loaded = load_sweep(sweep, overrides or [], need_frames=True)
    for line in describe.describe(loaded):
        say(line)
    for line in describe.forecast(loaded, describe.probe(loaded)) if probe else ():
        say(line)


@app.command()
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


@app.command()
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
    from search.config.sweep_config import load_sweep
    from search.journal import sweeps

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
        known = sweeps.known_points(loaded, warm_start or [], console)
        directory = sweeps.create_sweep(loaded, console, known)
    try:
        _run(loaded, directory, cluster)
    except ValueError:
        sweeps.discard_if_untouched(directory)
        raise


@app.command()
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


@app.command()
def sync(name: Name) -> None:
    """Bring to MLflow what a sweep's driver could not deliver before it ended; nothing is trained."""
    from search.journal.sweeps import open_sweep
    from search.running.driver import sync_sweep

    loaded, directory = open_sweep(name)
    if not sync_sweep(loaded, directory, console):
        raise typer.Exit(1)


@app.command()
def stop(name: Name) -> None:
    """Stop a running sweep from another shell: its trials stop at their next evaluation, to be taken up again."""
    from search.journal.journal import Journal
    from search.journal.sweeps import is_running, open_sweep
    from search.paths import JOURNAL_FILE
    from search.running.stop_flag import STOP_MINUTES, STOP_REQUESTED

    _, directory = open_sweep(name)
    if not is_running(directory):
        say(f"{name} is not running.")
        return
    journal = Journal(directory / JOURNAL_FILE)
    journal.set_meta(STOP_REQUESTED, "stopped by vaegan stop")
    journal.close()
    say(f"{name} stops when its running trials reach their next evaluation, at the latest in {STOP_MINUTES:g} minutes.")


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
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
    console.print(
        f"Trial {promoted.trial.number} is version {promoted.version} of {promoted.model}, alias champion.\n"
        f"{promoted.trial.confirmation or 'One seed only: not confirmed (confirm: {top, seeds})'}.\n"
        f'Load it: mlflow.pyfunc.load_model("models:/{promoted.model}@champion")',
        highlight=False,
    )


@app.command()
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


@app.command()
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


def main() -> None:
    """Runs the command; what a person did wrong is one message, not a traceback."""
    try:
        app()
    except ValueError as error:
        _print_error(str(error))
        sys.exit(2)
    except OSError as error:
        _print_error(str(error))
        sys.exit(1)
    except Exception as error:
        if not type(error).__module__.startswith("mlflow."):
            raise
        from search.tracking.client import explain

        _print_error(f"MLflow cannot be used: {explain(error)}")
        sys.exit(1)


def _print_error(text: str) -> None:
    from search.redaction import redact

    Console(stderr=True).print(f"Error: {redact(text)}", style="red", highlight=False, markup=False)


if __name__ == "__main__":
    main()
