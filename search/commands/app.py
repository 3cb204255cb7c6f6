"""The command `vaegan` and its frame."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from search.terminal import errors, screen


class Commands(TyperGroup):
    """The commands; Ctrl-C ends any of them with a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            errors.say("Stopped.")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Hyperparameter search for VAE-GANs: Ray Tune schedules, Optuna chooses, MLflow keeps the curves.",
    epilog="Start with `make sweep`, or: `vaegan data doom -o runs/frames/doom`, then `vaegan sweep SWEEP.yaml`.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from search.journal.schema import SCHEMA_VERSION
        from search.provenance import code_version

        commit = code_version()
        known = f", commit {commit}" if commit else ""
        screen.say(f"vaegan-search {version('vaegan-search')}{known}, journal {SCHEMA_VERSION}")
        raise typer.Exit


@app.callback()
def vaegan(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Hyperparameter search for VAE-GANs."""
    pass
