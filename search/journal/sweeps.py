"""Create, open, extend, stop and lock the sweep directories under runs/sweeps/."""

from __future__ import annotations

import itertools
import json
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.config.load import parse_sweep, read_sweep
from search.config.sweep import Sweep, flat
from search.config.sweep_config import SweepConfig
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.lease import lease
from search.names import ASKED
from search.paths import JOURNAL_FILE, sweeps_directory
from search.provenance import code_version
from vaegan_core.spelling import did_you_mean

if TYPE_CHECKING:  # torch, which no command needs that only looks at a sweep
    from vaegan_core.data.frames import FrameSet
    from vaegan_core.metrics.frame_features import FrameFeatures

ASIDE_DIRECTORY = ".aside"
"""Under runs/sweeps: what is kept of sweeps that could not start."""
STOP_MINUTES = 10.0
"""Grace period: after it a stopping sweep is killed, and trials lose the steps since their last checkpoint."""
CHANGEABLE = (
    *("budget.", "resources.", "retries", "confirm", "promote.", "evaluation_minutes", "tracking.keep_models"),
    *("questions", "blocks.at_most", "blocks.share"),
)
"""Keys of a sweep's YAML that may change when it continues: they change no trial's numbers. A question that changes is
a new one, with trials of its own."""


def directory_of(name: str) -> Path:
    """The directory of the sweep of that name, whether it exists or not. Raises ValueError for a path."""
    if "/" in name:
        raise ValueError(f"{name!r} is no name of a sweep, but a path{did_you_mean(Path(name).name, _existing())}")
    return sweeps_directory() / name


def _existing() -> list[str]:
    return sorted(path.parent.name for path in sweeps_directory().glob(f"*/{JOURNAL_FILE}") if path.is_file())


def exists(directory: Path) -> bool:
    """Whether a sweep has begun in a directory."""
    return (directory / JOURNAL_FILE).is_file()


def check_name_is_free(sweep: Sweep) -> None:
    """Raises ValueError where a sweep of that name exists."""
    directory = directory_of(sweep.config.name)
    if exists(directory):
        raise ValueError(
            f"a sweep named {sweep.config.name} exists in {directory}; "
            f"continue it (vaegan resume {sweep.config.name}) or choose another name (--set name=…)"
        )


def create_sweep(
    sweep: Sweep,
    frame_set: FrameSet,
    features: FrameFeatures,
    known: Sequence[dict[str, Any]] = (),
    storage: str = "",
) -> Path:
    """Writes the journal of a new sweep, with `known` results of earlier ones, and returns its directory. The sweep
    lives in `storage`; "" where that is this directory.

    Raises ValueError where the name is taken.
    """
    check_name_is_free(sweep)
    directory = directory_of(sweep.config.name)
    meta = {
        Meta.ID: uuid.uuid4().hex,
        Meta.SWEEP: sweep.config.to_yaml(),
        Meta.FRAMES: frame_set.fingerprint,
        Meta.FEATURES: features.fingerprint,
        Meta.BASELINES: json.dumps(features.baselines | {"floor": features.floor}),
        Meta.CODE: code_version(),
        Meta.WARM_START: json.dumps(list(known)),
        Meta.STORAGE: storage,
    }
    try:
        Journal.create(directory / JOURNAL_FILE, **meta).close()
    except FileExistsError:  # created by another process at this moment
        check_name_is_free(sweep)
    return directory


def set_aside_if_untouched(directory: Path) -> None:
    """Moves a sweep that could not start out of the way, which frees its name; one with trials is kept, as is one that
    another process runs by now."""
    with suppress(ValueError), lease(directory):
        journal = Journal(directory / JOURNAL_FILE)
        untouched = not journal.next_number()
        journal.close()
        if untouched:
            aside = sweeps_directory() / ASIDE_DIRECTORY
            aside.mkdir(exist_ok=True)
            names = (aside / f"{directory.name}-{number}" for number in itertools.count(1))
            directory.rename(next(path for path in names if not path.exists()))


def reopen(sweep: Sweep) -> Sweep:
    """The existing sweep of that name, with what may be changed taken over from this one. Call it under its lease.

    Raises ValueError naming the differences when it is another sweep.
    """
    name = sweep.config.name
    begun, directory = open_sweep(name)
    fatal = fatal_differences(begun, sweep)
    if fatal:
        raise ValueError(
            f"the sweep in {directory} was started with another YAML; choose another name (--set name=…), or "
            f"continue it as it was started: vaegan resume {name}\n  " + "\n  ".join(fatal)
        )
    for part, key in (("budget", "trials"), ("blocks", "at_most")):
        before, now = (getattr(config, part) for config in (begun.config, sweep.config))
        if getattr(before, key) > getattr(now, key):  # extended since
            larger = now.model_copy(update={key: getattr(before, key)})
            sweep = replace(sweep, config=sweep.config.model_copy(update={part: larger}))
    if sweep.config != begun.config:
        journal = Journal(directory / JOURNAL_FILE)
        _rewrite(sweep, journal)
        journal.close()
    return sweep


def fatal_differences(begun: Sweep, now: Sweep) -> list[str]:
    """Differences in words that make it another sweep, whose numbers do not compare."""
    changed = differences(begun.config, now.config)
    return [line for key, line in changed.items() if not key.startswith(CHANGEABLE)]


def differences(before: SweepConfig, now: SweepConfig) -> dict[str, str]:
    """Differences in words, by dotted key."""
    then_, now_ = (dict(flat(config.model_dump(mode="json"))) for config in (before, now))
    keys = [key for key in then_ | now_ if then_.get(key) != now_.get(key)]
    return {key: f"{key}: {then_.get(key, 'not there')} then, {now_.get(key, 'not there')} now" for key in keys}


def _rewrite(sweep: Sweep, journal: Journal) -> None:
    """Stores the sweep's changed configuration and clears the "published" mark."""
    with journal.transaction():
        journal.set_meta(Meta.SWEEP, sweep.config.to_yaml())
        journal.set_meta(Meta.PUBLISHED, "")


def extend(name: str, more: int) -> Sweep:
    """The sweep of that name with as many more trials in its budget, or blocks where it runs nothing else; unchanged
    where an earlier driver has extended it for the same request ($VAEGAN_ASKED). Call it under its lease.

    Raises ValueError where there can be no more.
    """
    sweep, directory = open_sweep(name)
    asked = os.environ.get(ASKED, "")
    journal = Journal(directory / JOURNAL_FILE)
    try:
        if asked and journal.meta(Meta.EXTENDED_AS, "") == asked:
            return sweep
        data = sweep.config.model_dump(mode="json")
        part, key = ("budget", "trials") if sweep.config.budget.trials else ("blocks", "at_most")
        data[part][key] += more
        extended = parse_sweep(data, f"{name} with {part}.{key} {data[part][key]}")
        with journal.transaction():
            _rewrite(extended, journal)
            journal.set_meta(Meta.EXTENDED_AS, asked)
        return extended
    finally:
        journal.close()


def retry_failed(directory: Path) -> list[int]:
    """Marks every failed trial to be retried, from its last checkpoint if it has one; returns their numbers. Call it
    under the sweep's lease."""
    journal = Journal(directory / JOURNAL_FILE)
    numbers = journal.forgive_failed()
    if numbers:
        journal.set_meta(Meta.PUBLISHED, "")
    journal.close()
    return numbers


def open_sweep(name: str) -> tuple[Sweep, Path]:
    """The sweep of that name as it was started. Raises ValueError naming those that exist."""
    directory = directory_of(name)
    if not (directory / JOURNAL_FILE).is_file():
        existing = _existing()
        known = f"{', '.join(existing) or 'none'}{did_you_mean(name, existing)}"
        raise ValueError(f"there is no sweep named {name}; there are: {known}")
    journal = Journal(directory / JOURNAL_FILE)
    sweep = read_sweep(journal.meta(Meta.SWEEP), str(directory / JOURNAL_FILE))
    journal.close()
    return sweep, directory


def request_stop(directory: Path) -> None:
    """Asks the driver that runs the sweep to stop it."""
    journal = Journal(directory / JOURNAL_FILE)
    journal.set_meta(Meta.STOP_REQUESTED, "stopped by vaegan stop")
    journal.close()
