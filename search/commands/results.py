"""What a sweep found: full-fidelity trials by rank, their front; to the report and to the screen."""

from __future__ import annotations

from pathlib import Path

from mlflow.exceptions import MlflowException
from rich.console import Console

from search.commands.live import trial_table
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.outbox import Outbox
from search.paths import JOURNAL_FILE, REPORT_FILE, tracking_uri
from search.report.page import write_report
from search.standings.standings import standings
from search.terminal import stage
from search.tracking.client import open_client
from search.tracking.errors import explain


def try_to_write_report(sweep: Sweep, directory: Path, console: Console) -> None:
    """The report from what MLflow holds; where it cannot be read now, a word instead."""
    try:
        with stage(console, "Writing the report"):
            write_report(
                open_client(tracking_uri(sweep.config.tracking.uri)), sweep.config.name, directory / REPORT_FILE
            )
    except (MlflowException, OSError, ValueError) as error:
        console.print(
            f"No report was written, for MLflow cannot be read: {explain(error)}. "
            f"`vaegan report {sweep.config.name}` writes it later.",
            highlight=False,
        )


def print_results(sweep: Sweep, directory: Path, console: Console) -> None:
    """The table of all trials, best first, and what one would type next."""
    journal = Journal(directory / JOURNAL_FILE)
    found = standings(sweep, journal)
    best = [trial.number for trial in found.best]
    rest = [trial for trial in journal.trials() if trial.number not in best and trial.replicate_of is None]
    console.print(trial_table(sweep, journal, [*found.best, *rest], found.front))
    console.print("* no other trial is better on every objective\n" if found.front else "no trial was completed\n")
    for number in (number for number in best if number in found.confirmations):
        console.print(
            f"Trial {number} with fresh seeds, 95 % intervals: {found.confirmations[number].in_words()}",
            highlight=False,
        )
    for number in found.infeasible:
        violated = [each for each in sweep.constraints if each.violation(found.metrics[number]) > 0]
        console.print(f"Trial {number} violates {', '.join(map(str, violated))}", highlight=False)
    scales = found.scales
    console.print(
        f"Painting each test image in its own mean colour: pixel MSE {scales.mean_color_mse:.4f}, FD "
        f"{scales.mean_color_fd:.0f}; real frames: FD {scales.floor_fd:.0f}.",
        highlight=False,
    )
    if found.best:
        s1, _ = scales.scores(found.metrics[best[0]])
        worse = "; that is worse than the mean colour: train longer, or widen the space" if s1 > 1 else ""
        console.print(f"Best: trial {best[0]}, pixel MSE at {s1:.0%} of the mean colour's{worse}.", highlight=False)
        name = sweep.config.name
        run_id = journal.trial(best[0]).run_id
        if (directory / REPORT_FILE).is_file():
            console.print(f"The report is {directory / REPORT_FILE}.", highlight=False)
        if run_id is None or Outbox(journal).undelivered():
            console.print(f"\nNext, when MLflow can be written to:\n  vaegan sync {name}", highlight=False)
        else:
            commands = f"  vaegan ui {name}\n  vaegan promote {name}\n  vaegan rerun {run_id}"
            console.print(f"\nNext:\n{commands}", highlight=False)
    journal.close()
