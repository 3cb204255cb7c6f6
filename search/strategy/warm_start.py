"""What a sweep begins with: completed trials of earlier sweeps."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rich.console import Console

from search.config.space import lies_in
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.sweeps import differences, open_sweep
from search.names import Outcome
from search.paths import JOURNAL_FILE
from vaegan_core.data.frames import FrameSet


def known_points(sweep: Sweep, names: Iterable[str], console: Console) -> list[dict[str, Any]]:
    """Completed trials of earlier sweeps as known points of a new one: those whose parameters lie in its space.

    Raises ValueError when an earlier sweep's objectives cannot be compared: other frames, or another base.
    """
    fingerprint = FrameSet.open(sweep.config.base["frames"]).fingerprint
    found: list[dict[str, Any]] = []
    for name in names:
        earlier, directory = open_sweep(name)
        journal = Journal(directory / JOURNAL_FILE)
        if journal.meta(Meta.FRAMES) != fingerprint:
            raise ValueError(f"--warm-start {name}: it ran on other frames, so its results say nothing here")
        changed = [line for key, line in differences(earlier.config, sweep.config).items() if key.startswith("base.")]
        if changed:
            raise ValueError(
                f"--warm-start {name}: its base differs, so its results cannot be compared:\n  " + "\n  ".join(changed)
            )
        completed = journal.trials(Outcome.COMPLETED)
        points = [
            {"params": trial.params, "metrics": journal.last_metrics(trial.number)}
            for trial in completed
            if lies_in(sweep.space, trial.params)
        ]
        console.print(f"From {name}: {len(points)} of {len(completed)} completed trials lie in the space.")
        found += points
        journal.close()
    return found


def warm_start(journal: Journal) -> list[dict[str, Any]]:
    """Results of earlier sweeps that this one began with: params and metrics of each."""
    known: list[dict[str, Any]] = json.loads(journal.meta(Meta.WARM_START, "[]"))
    return known
