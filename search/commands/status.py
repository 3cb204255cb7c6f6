"""How far a sweep is, read from its journal, also while another process runs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from search.commands.words import best_in_words, trials_in_words
from search.journal.journal import Journal
from search.journal.outbox import Outbox
from search.journal.sweeps import open_sweep
from search.lease import is_running
from search.names import Outcome
from search.paths import JOURNAL_FILE, disk_use
from search.standings.blocks import standing
from search.standings.progress import ahead, read_progress, read_steps
from search.terminal import counted


def read_status(name: str) -> dict[str, Any]:
    """Plain data for programs. Raises ValueError when there is no sweep of that name."""
    sweep, directory = open_sweep(name)
    journal = Journal(directory / JOURNAL_FILE)
    outbox = Outbox(journal)
    reached = read_steps(directory)
    progress = read_progress(sweep, journal, reached)
    running = [
        {
            "trial": trial.number,
            "step": ahead(trial, reached),
            "of": sweep.steps if trial.block is None else sweep.block_steps,
            "params": trial.params,
        }
        for trial in journal.trials(Outcome.RUNNING)
    ]
    asked = standing(sweep, journal)
    found = {
        "name": name,
        "running": is_running(directory),
        "trials": {
            "by_outcome": progress.counts,
            "done": progress.done,
            "wanted": progress.wanted,
            "budget": progress.budget,
        },
        "steps": {"done": progress.steps, "expected": round(progress.expected_steps)},
        "best": {key: {"trial": number, "value": value} for key, (number, value) in progress.best.items()},
        "running_trials": running,
        "questions": [
            {"name": e.name, "blocks": e.done, "next_look": e.look, "at_most": e.at_most, "verdict": e.verdict}
            for e in asked
        ],
        "trial_hours": journal.running_seconds() / 3600,
        "disk_bytes": disk_use(directory),
        "mlflow": {
            "points_to_deliver": outbox.undelivered(),
            "refused": [{"what": each.what, "reason": each.reason} for each in outbox.refused()],
        },
        "words": [trials_in_words(progress), best_in_words(progress)],
        "questions_in_words": [each.in_words() for each in asked],
    }
    journal.close()
    return found


def status_lines(status: dict[str, Any]) -> Iterator[str]:
    """What `read_status` found, as lines for people."""
    state = "is running" if status["running"] else "is not running"
    yield f"{status['name']} {state}: {status['words'][0]}; {status['words'][1]}."
    steps = status["steps"]
    yield (
        f"{steps['done']:,} of about {steps['expected']:,} steps, {status['trial_hours']:.2f} hours of trials, "
        f"{status['disk_bytes'] / 1e6:.0f} MB on disk."
    )
    for words in status["questions_in_words"]:
        yield f"  {words}"
    mlflow = status["mlflow"]
    if mlflow["points_to_deliver"]:
        yield f"Not in MLflow yet: {counted(mlflow['points_to_deliver'], 'curve point')}."
    if mlflow["refused"]:
        first, items = mlflow["refused"][0], counted(len(mlflow["refused"]), "item")
        yield f"MLflow rejected {items}; the first: {first['what']}, {first['reason']}"
    for trial in status["running_trials"]:
        yield f"  trial {trial['trial']}: step {trial['step']} of {trial['of']}"
