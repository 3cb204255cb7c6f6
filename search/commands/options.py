"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the YAML file; repeatable.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a sweep.")]
SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", help="Head of a running Ray cluster, or auto inside one. Default: Ray runs here."
    ),
]
Extend = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Add N trials to the sweep's budget. Finished trials are kept.")
]
