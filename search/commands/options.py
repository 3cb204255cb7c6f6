"""Options and arguments that several commands share."""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the YAML file; repeatable.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a sweep.")]
SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Run it as a job of a Ray cluster (http://HEAD:8265), or, on a machine of one, there (auto). Default: Ray "
        "runs here.",
    ),
]
Server = Annotated[
    str | None,
    typer.Option("--cluster", metavar="URL", help="The sweep runs as a job of a Ray cluster: http://HEAD:8265."),
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="Where the sweep outlasts this machine: s3://…, gs://…, or a directory that every machine has. Default: "
        "$VAEGAN_STORAGE, else the sweep's own directory.",
    ),
]
MAX_SEED = 2**32 - 1
"""NumPy takes no larger one."""
Extend = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=10**6, help="Add N trials to the sweep's budget. Finished trials are kept."),
]


def at_store(uri: str, *, mlflow: bool = False) -> str:
    """What comes before a command, of MLflow itself or of ours, that is to find the runs at `uri`: nothing where it
    looks there by itself."""
    from search.names import JOB
    from search.paths import SQLITE, tracking_uri
    from search.redaction import redact

    if JOB in os.environ and not uri.startswith(SQLITE):  # what a job says is read on another machine, and logged
        return f"MLFLOW_TRACKING_URI={shlex.quote(redact(uri))} "
    looks = os.environ.get("MLFLOW_TRACKING_URI") if mlflow else tracking_uri()
    return "" if uri == looks else f"MLFLOW_TRACKING_URI={shlex.quote(uri)} "


def check_output(output: Path, option: str = "--output") -> None:
    """Raises ValueError, before anything is read or computed, for no file, and for one that is there and may be a
    configuration, or holds runs."""
    from search.paths import JOURNAL_FILE, SQLITE, tracking_uri

    if output.is_dir():
        raise ValueError(f"{option} must be a file, but {output} is a directory")
    if output.suffix in (".yaml", ".yml") and output.exists():
        raise ValueError(f"{option} would replace {output}, which may be a configuration; name another file")
    if output.exists() and (output.name == JOURNAL_FILE or f"{SQLITE}{output.resolve()}" == tracking_uri()):
        raise ValueError(f"{option} would replace {output}, which holds the runs of sweeps; name another file")


def help_of(command: Callable[..., Any]) -> str:
    """The command's docstring with every paragraph on one line, which typer wraps to the width of the terminal."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(command.__doc__ or "").split("\n\n"))


def tracking_uri_of(name: str) -> str | None:
    """Where a sweep on this machine keeps its runs; None for a sweep of another machine."""
    from search.journal.sweeps import open_sweep
    from search.paths import tracking_uri

    try:
        configured = open_sweep(name)[0].config.tracking.uri
    except ValueError:
        return None
    return tracking_uri(configured)
