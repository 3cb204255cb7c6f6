"""The command `vaegan promote`, and the lines it ends with."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.commands.errors import FAILED
from search.commands.options import at_store, tracking_uri_of
from search.names import CHAMPION_ALIAS
from search.terminal import errors, program, screen

if TYPE_CHECKING:
    from search.promotion.promote import Promotion, Wish


def promote(
    target: Annotated[
        str,
        typer.Argument(
            metavar="NAME|RUN_ID", help="A sweep, one of its trials (NAME/17), or the id of a trial's run or its start."
        ),
    ],
    best: Annotated[
        str | None, typer.Option(metavar="OBJECTIVE", help="The best trial on this objective, not the recommended one.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Registered model; default: vaegan-NAME.")] = None,
    alias: Annotated[str, typer.Option(help="The alias to move.")] = CHAMPION_ALIAS,
    frames: Annotated[str | None, typer.Option(metavar="DIR", help="Where its frame set is now.")] = None,
    no_confirm: Annotated[
        bool, typer.Option("--no-confirm", help="Train no fresh seeds; that gate stays closed.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Move the alias although gates fail; a tag says which.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say everything, change nothing.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Move the alias back to the version before.")] = False,
) -> None:
    """Put a trial's model into the MLflow registry, through gates, and move the alias `champion` to it.

    The trial is trained again on fresh seeds first, if it was not, and its stored weights are measured on its frames.
    Each gate passes or fails with its numbers; one that fails moves nothing (exit code 1).
    """
    from search.paths import tracking_uri
    from search.promotion.errors import PromotionLost
    from search.promotion.promote import Wish, check_names
    from search.tracking.client import open_existing

    check_names(model, alias)
    wish = Wish(target, best, model, alias, frames, not no_confirm, force, dry_run)
    uri = tracking_uri_of(target.partition("/")[0]) or tracking_uri()
    stores = at_store(uri), at_store(uri, mlflow=True)  # before MLflow sets the variable itself
    client = open_existing(uri)
    try:
        if rollback:
            _roll_back(client, wish)
        else:
            _promote(client, wish, stores)
    except PromotionLost as error:
        errors.say(f"Error: {error}", "red")
        raise typer.Exit(FAILED) from None


def _promote(client: Any, wish: Wish, stores: tuple[str, str]) -> None:
    from search.promotion.promote import Voice
    from search.promotion.promote import promote as promote_trial

    promoted = promote_trial(client, wish, Voice(screen.say, screen.stage, screen.progress))
    for line in _verdict(promoted, wish):
        screen.say(line)
    if promoted.version is None:
        if promoted.failed:
            raise typer.Exit(FAILED)
        return
    if promoted.size is not None:
        for line in how_to_use(stores, promoted.model, promoted.size, wish.alias):
            screen.say(line)


def _verdict(promoted: Promotion, wish: Wish) -> Iterator[str]:
    trial, name = promoted.trial.number, f"{promoted.model}, alias {wish.alias}"
    failed = ", ".join(gate.name for gate in promoted.failed)
    if promoted.version is None:
        if failed:
            closed = [gate.name for gate in promoted.failed if not gate.forcible]
            how = f"{closed[0]} cannot be forced" if closed else "--force promotes it all the same"
            yield f"Not passed: {failed}. Nothing was moved; {how}."
        else:
            later = ", ".join(gate.name for gate in promoted.gates if gate.pending)
            but = f" but those to come ({later})" if later else ""
            yield f"Every gate is passed{but}. Trial {trial} would be a version of {name}; nothing was changed."
        return
    if not promoted.moved:
        yield f"Trial {trial} is version {promoted.version} of {name}, as before: nothing changed."
        return
    forced = f", forced past {failed}" if failed else ""
    yield f"Trial {trial} is version {promoted.version} of {name}{forced}."


def _roll_back(client: Any, wish: Wish) -> None:
    from search.promotion.alias import Alias
    from search.promotion.choose import sweep_name

    model = wish.model or f"vaegan-{sweep_name(client, wish.target)}"
    now, before = Alias(client, model, wish.alias).roll_back(dry_run=wish.dry_run)
    done = "would go" if wish.dry_run else "went"
    screen.say(f"The alias {wish.alias} of {model} {done} back from version {now} to version {before}.")


def how_to_use(
    stores: tuple[str, str], model: str, size: tuple[int, int], alias: str = CHAMPION_ALIAS
) -> Iterator[str]:
    """Lines to type, in a fresh shell too, with a registered model of frames of `size` (H, W); `stores` come before
    commands of ours, and of MLflow."""
    (ours, store), name = stores, f"models:/{model}@{alias}"
    python, mlflow = program("python"), program("mlflow")
    height, width = size
    code = f'import mlflow; print(mlflow.pyfunc.load_model("{name}"))'
    asked = '{"inputs": [[]], "params": {"mode": "sample", "count": 1, "seed": 1}}'
    modes = "mode (reconstruct, encode, decode, sample), count, seed and sampler"
    yield f"It takes frames, uint8 [n, {height}, {width}, 3], or latents (mode decode), and params {modes}."
    yield f"See what it makes:\n  {ours}vaegan sample {name} -o runs/samples --grid"
    yield f"Load it:\n  {store}{python} -c {shlex.quote(code)}"
    path = "" if mlflow == "mlflow" else f'PATH={shlex.quote(str(Path(sys.prefix) / "bin"))}:"$PATH" '
    yield f"Serve it:\n  {store}{path}mlflow models serve -m {name} --env-manager local --port 5001"
    yield (
        f"and ask it for a sample:\n  curl -s http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' "
        f"-d {shlex.quote(asked)}"
    )
