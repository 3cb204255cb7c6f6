"""Warm starts: a sweep begins with completed trials of earlier sweeps."""

from __future__ import annotations

import json
from typing import Any

from search.config.space import lies_in
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.sweeps import differences, open_sweep
from search.names import Outcome
from search.paths import JOURNAL_FILE
from vaegan_core.data.frames import FrameSet


def known_points(sweep: Sweep, earlier_name: str) -> tuple[list[dict[str, Any]], int]:
    """(completed trials of an earlier sweep that lie in the new one's space, number of completed trials).

    Raises ValueError when the results cannot be compared: other frames, or another base.
    """
    earlier, directory = open_sweep(earlier_name)
    journal = Journal(directory / JOURNAL_FILE)
    if journal.meta(Meta.FRAMES) != FrameSet.open(sweep.config.base["frames"]).fingerprint:
        raise ValueError(f"--warm-start {earlier_name}: it ran on other frames, so its results say nothing here")
    changed = [line for key, line in differences(earlier.config, sweep.config).items() if key.startswith("base.")]
    if changed:
        raise ValueError(
            f"--warm-start {earlier_name}: its base differs, so its results cannot be compared:\n  "
            + "\n  ".join(changed)
        )
    completed = journal.trials(Outcome.COMPLETED)
    needed = {*sweep.config.objectives, *(constraint.metric for constraint in sweep.constraints)}
    points = []
    for trial in completed:
        if lies_in(sweep.space, trial.params):
            curves = {
                step: {name: value for name, value in metrics.items() if name in needed}
                for step, metrics in journal.evaluations(trial.number).items()
            }
            points.append({"params": trial.params, "metrics": curves[trial.step], "evaluations": curves})
    journal.close()
    return points, len(completed)


def warm_start(journal: Journal) -> list[dict[str, Any]]:
    """The earlier trials that the sweep began with: params, metrics, and since version 0.3 all evaluations by step."""
    known: list[dict[str, Any]] = json.loads(journal.meta(Meta.WARM_START, "[]"))
    return known
