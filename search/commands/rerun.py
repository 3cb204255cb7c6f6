"""The command `vaegan rerun`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from search.commands.options import Set, tracking_uri_of
from search.json_text import json_text
from search.terminal import Screen, counted, errors, screen

if TYPE_CHECKING:  # torch and MLflow, which `vaegan --help` does without
    from search.local.compare import CurveDifference
    from search.local.rerun import Result, Row

CURVES_SHOWN = 12
"""Differing training curves in the table; `--json` has all."""


def rerun(
    run: Annotated[
        str, typer.Argument(metavar="RUN_ID", help="MLflow run of a trial, its first digits, or SWEEP/NUMBER.")
    ],
    frames: Annotated[str | None, typer.Option(metavar="DIR", help="Where its frame set is now.")] = None,
    inception_weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where its Inception weights are now, if it used any.")
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Train there. Default: as it was, if it is here.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Stop at this step. Default: where the run ended.")
    ] = None,
    overrides: Set = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Stop at the first value that is not finite, and name its tensor; slow.")
    ] = False,
    from_checkpoint: Annotated[
        bool, typer.Option("--from-checkpoint", help="Continue from what the run kept: its state, or its weights.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Repeat a trial from its MLflow run alone, without Ray, and compare every number; with --set, a variant of it."""
    from search.local.plan import Wanted, in_words, make_plan
    from search.local.rerun import rerun as train
    from search.paths import tracking_uri
    from search.tracking.client import open_existing

    said = errors if as_json else screen
    client = open_existing(tracking_uri_of(run.partition("/")[0]) or tracking_uri())
    wanted = Wanted(run, frames, inception_weights, device, steps, tuple(overrides or ()), debug, from_checkpoint)
    with TemporaryDirectory() as directory:
        with said.stage("Reading the run and its frames") as update:
            plan = make_plan(client, wanted, Path(directory), update)
        for line in in_words(plan):
            said.say(line)
        with said.progress("Training", plan.steps) as advance:
            result = train(client, plan, advance, said.say)
    if result.interrupted:
        said.say(
            f"Interrupted at step {result.reached}: run {result.run_id} is KILLED, with its curves up to there. "
            "The same command begins anew."
        )
    if as_json:
        typer.echo(json_text(result.to_json(), indent=2))
    else:
        show(result, screen)
    if result.interrupted:
        raise typer.Exit(130)
    if not result.succeeded:
        raise typer.Exit(1)


def show(result: Result, screen: Screen) -> None:
    """The verdict, the table, and where the curves are."""
    if result.reason and not result.interrupted:
        screen.say(f"Ended early: {result.reason}.")
    screen.say(result.in_words())
    if result.rows or (result.comparison.curves and not result.variant):
        screen.show(table(result))
    for line in result.explanations():
        screen.say(line)
    if not result.interrupted:
        screen.say(f"Its curves are in MLflow run {result.run_id}, below the trial's run.")


def table(result: Result) -> Table:
    """A row per validation metric, then one per training curve that differs."""
    differs = {curve.key: curve for curve in result.comparison.curves} if not result.variant else {}
    has_seeds = any(row.seeds for row in result.rows)
    grid = Table(title=f"At step {result.step}" if result.step else None, title_justify="left")
    grid.add_column("")
    for name in ("original", "variant" if result.variant else "rerun", "difference"):
        grid.add_column(name, justify="right")
    if differs:
        grid.add_column("largest, relative", justify="right")
        grid.add_column("first at step", justify="right")
    if has_seeds:
        grid.add_column(f"fresh seeds ({result.seeds.seeds}), mean ± SD", justify="right")
        grid.add_column("beyond them")
    for row in result.rows:
        grid.add_row(row.key, *_values(row), *_parting(differs, row.key), *(_against_seeds(row) if has_seeds else ()))
    shown = {row.key for row in result.rows}
    others = [curve for curve in differs.values() if curve.key not in shown]
    for curve in others[:CURVES_SHOWN]:
        grid.add_row(curve.key, "", "", "", *_parting(differs, curve.key))
    if len(others) > CURVES_SHOWN:
        grid.add_row(f"… and {counted(len(others) - CURVES_SHOWN, 'more curve')}: --json has them")
    return grid


def _values(row: Row) -> tuple[str, str, str]:
    then, now = ("" if value is None else f"{value:.6g}" for value in (row.then, row.now))
    difference = "" if row.then is None or row.now is None else f"{row.now - row.then:+.3g}"
    return then, now, "0" if row.then == row.now else difference


def _parting(differs: dict[str, CurveDifference], key: str) -> tuple[str, ...]:
    if not differs:
        return ()
    curve = differs.get(key)
    return (f"{curve.largest:.2g}", str(curve.first)) if curve else ("0", "")


def _against_seeds(row: Row) -> tuple[str, str]:
    if row.seeds is None:
        return "", ""
    words = {True: "yes", False: "no", None: ""}
    return f"{row.seeds.mean:.6g} ± {row.seeds.deviation:.2g}", words[row.beyond]
