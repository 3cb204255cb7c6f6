"""The command `vaegan rerun`."""

from __future__ import annotations

from typing import Annotated

import typer

from search.terminal import screen


def rerun(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="MLflow run of a trial.")],
    frames: Annotated[str | None, typer.Option(metavar="DIR", help="Where its frame set is now.")] = None,
    inception_weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where its Inception weights are now, if it used any.")
    ] = None,
) -> None:
    """Repeat a trial from its MLflow run alone, without Ray, and compare every number."""
    from search.local.rerun import prepare_rerun
    from search.local.rerun import rerun as rerun_trial
    from search.paths import tracking_uri
    from search.tracking.client import open_existing

    client = open_existing(tracking_uri())
    config, frame_set, moved = prepare_rerun(client, run_id, frames, inception_weights)
    if moved:
        screen.say(f"The trial ran on another machine ({moved}), so its numbers cannot be repeated bit for bit here.")
    with screen.progress("Repeating the training", config.train.steps) as advance:
        result = rerun_trial(client, run_id, config, frame_set, advance, screen.say)
    screen.say(f"The rerun's curves are in MLflow run {result.run_id}, below the trial's run.")
    if result.first is None:
        screen.say(f"Identical: all {result.compared} curve points are the same, bit for bit.")
        return
    first = result.first
    screen.say(
        f"Different: {result.differing} of {result.compared} curve points; first at step {first.step}, {first.key}: "
        f"{first.before} then, {first.now} now."
    )
    for key, before in result.before.items() if moved else ():
        screen.say(f"  {key}: {before} then, {result.metrics[key]:.6g} now")
    raise typer.Exit(1)
