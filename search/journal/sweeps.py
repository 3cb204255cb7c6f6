"""Sweeps on disk, each a directory of its name under runs/sweeps with a journal: made, found again, changed where that
changes no trial's numbers, and held by one driver at a time."""

from __future__ import annotations

import fcntl
import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from search.config.load import parse_sweep
from search.config.sweep import Sweep, flat
from search.config.sweep_config import SweepConfig
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.paths import JOURNAL_FILE, sweeps_directory
from search.provenance import code_version
from search.running.sweep_frames import check_inception, open_frames
from vaegan_core.strict_yaml import parse_yaml

LOCK_FILE = "driver.lock"
CHANGEABLE = ("budget.", "resources.", "retries", "confirm", "evaluation_minutes", "tracking.keep_models")
"""Keys of a sweep's YAML that may be others when it goes on: they change no trial's numbers."""


def create_sweep(sweep: Sweep, console: Console, known: Sequence[dict[str, Any]] = ()) -> Path:
    """Writes the journal of a new sweep, with `known` results of earlier ones, and returns its directory.

    Raises ValueError where the name is taken.
    """
    directory = sweeps_directory() / sweep.config.name
    if (directory / JOURNAL_FILE).exists():
        raise ValueError(
            f"a sweep named {sweep.config.name} exists in {directory}; "
            f"go on with it (vaegan resume {sweep.config.name}) or choose another name (--set name=…)"
        )
    check_inception(sweep)
    frame_set, features = open_frames(sweep, console)
    Journal.create(
        directory / JOURNAL_FILE,
        id=uuid.uuid4().hex,
        sweep=sweep.config.to_yaml(),
        frames=frame_set.fingerprint,
        features=features.fingerprint,
        baselines=json.dumps(features.baselines | {"floor": features.floor}),
        code=code_version(),
        **{Meta.WARM_START: json.dumps(list(known))},
    ).close()
    return directory


def discard_if_untouched(directory: Path) -> None:
    """Removes a sweep that could not start: no trial was drawn, so its name is free again."""
    journal = Journal(directory / JOURNAL_FILE)
    untouched = not journal.trials()
    journal.close()
    if untouched:
        shutil.rmtree(directory)


def create_or_reopen(sweep: Sweep, console: Console) -> tuple[Sweep, Path]:
    """This very sweep and its directory, new or begun before; one begun before takes over what may be changed.

    Raises ValueError naming the differences when the sweep of its name is another one.
    """
    directory = sweeps_directory() / sweep.config.name
    if not (directory / JOURNAL_FILE).exists():
        return sweep, create_sweep(sweep, console)
    begun = open_sweep(sweep.config.name)[0]
    changed = differences(begun.config, sweep.config)
    fatal = [line for key, line in changed.items() if not key.startswith(CHANGEABLE)]
    if fatal:
        raise ValueError(
            f"the sweep in {directory} was begun with another YAML; choose another name (--set name=…), or go on with "
            f"it as it was begun: vaegan resume {sweep.config.name}\n  " + "\n  ".join(fatal)
        )
    if begun.config.budget.trials > sweep.config.budget.trials:  # extended since
        budget = sweep.config.budget.model_copy(update={"trials": begun.config.budget.trials})
        sweep = replace(sweep, config=sweep.config.model_copy(update={"budget": budget}))
    if sweep.config != begun.config:
        rewrite(sweep, directory)
    return sweep, directory


def differences(before: SweepConfig, now: SweepConfig) -> dict[str, str]:
    """What differs, in words, by dotted key."""
    then_, now_ = (dict(flat(config.model_dump(mode="json"))) for config in (before, now))
    keys = [key for key in then_ | now_ if then_.get(key) != now_.get(key)]
    return {key: f"{key}: {then_.get(key, 'not there')} then, {now_.get(key, 'not there')} now" for key in keys}


def rewrite(sweep: Sweep, directory: Path) -> None:
    """Puts the sweep's changed configuration into its journal; what was published is so no longer."""
    journal = Journal(directory / JOURNAL_FILE)
    journal.set_meta(Meta.SWEEP, sweep.config.to_yaml())
    journal.set_meta(Meta.PUBLISHED, "")
    journal.close()


def extend(sweep: Sweep, directory: Path, trials: int) -> Sweep:
    """The sweep with a budget of so many trials more. Raises ValueError where there can be no more."""
    with lease(directory):
        total = sweep.config.budget.trials + trials
        data = sweep.config.model_dump(mode="json")
        data["budget"]["trials"] = total
        extended = parse_sweep(data, f"{sweep.config.name} with {total} trials")
        rewrite(extended, directory)
    return extended


def retry_failed(directory: Path) -> list[int]:
    """Has every failed trial tried again, from its last checkpoint if it has one; returns their numbers."""
    with lease(directory):
        journal = Journal(directory / JOURNAL_FILE)
        numbers = journal.forgive_failed()
        if numbers:
            journal.set_meta(Meta.PUBLISHED, "")
        journal.close()
    return numbers


def open_sweep(name: str) -> tuple[Sweep, Path]:
    """The sweep of that name as it was started. Raises ValueError naming those that exist."""
    directory = sweeps_directory() / name
    if not (directory / JOURNAL_FILE).is_file():
        existing = sorted(path.parent.name for path in sweeps_directory().glob(f"*/{JOURNAL_FILE}"))
        raise ValueError(f"there is no sweep named {name}; there are: {', '.join(existing) or 'none'}")
    journal = Journal(directory / JOURNAL_FILE)
    sweep = parse_sweep(parse_yaml(journal.meta(Meta.SWEEP)), str(directory / JOURNAL_FILE))
    journal.close()
    return sweep, directory


@contextmanager
def lease(directory: Path) -> Iterator[None]:
    """Keeps a second driver off the sweep; the kernel releases it however this process ends."""
    with (directory / LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"another process is running the sweep in {directory}; wait for it or stop it") from None
        yield


def is_running(directory: Path) -> bool:
    """Whether a driver holds the sweep's lease."""
    try:
        with lease(directory):
            return False
    except ValueError:
        return True
