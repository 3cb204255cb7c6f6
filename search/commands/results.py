"""What a sweep found, on the screen and in the report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from search.advice import sync_command
from search.commands.live import trial_table
from search.commands.options import at_store
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.outbox import Outbox
from search.names import JOB
from search.paths import JOURNAL_FILE, REPORT_FILE, tracking_uri
from search.questions.sentences import notes_of, sentence_of
from search.report.page import upload_page, write_page, write_sweep_file
from search.report.reported import read_reported
from search.standings.blocks import Blocks
from search.standings.standings import Standings, standings
from search.terminal import Screen
from search.tracking.client import open_client
from search.tracking.errors import explain


def try_to_write_report(sweep: Sweep, directory: Path, screen: Screen) -> None:
    """Writes the report from what MLflow holds, and hands it to MLflow; says so where MLflow cannot be read."""
    name, path = sweep.config.name, directory / REPORT_FILE
    try:
        with screen.stage("Writing the report"):
            client = open_client(tracking_uri(sweep.config.tracking.uri))
            reported = read_reported(client, name)
            write_page(client, [reported], path)
            write_sweep_file(client, reported.sweep)
            upload_page(client, reported, path)
    except Exception as error:
        screen.say(f"No report: MLflow cannot be read ({explain(error)}). `vaegan report {name}` writes it later.")


def print_results(sweep: Sweep, directory: Path, screen: Screen) -> None:
    """Shows the table of all trials, best first, and the next commands."""
    journal = Journal(directory / JOURNAL_FILE)
    found = standings(sweep, journal)
    ranked = [trial.number for trial in found.best]
    rest = [trial for trial in journal.trials() if trial.number not in ranked and not trial.apart]
    if found.best or rest:
        screen.show(trial_table(sweep, journal, [*found.best, *rest], found.front))
        screen.say("* no other trial is better on every objective\n" if found.front else "no trial was completed\n")
        for line in _verdicts(sweep, found):
            screen.say(line)
    for line in _answers(sweep, journal):
        screen.say(line)
    if (directory / REPORT_FILE).is_file() and (found.best or sweep.config.questions):
        there = f"{REPORT_FILE} of the sweep's run in MLflow" if JOB in os.environ else str(directory / REPORT_FILE)
        screen.say(f"The report is {there}.")
    if found.best:
        screen.say(next_commands(sweep, journal, ranked[0]))
    journal.close()


def _answers(sweep: Sweep, journal: Journal) -> Iterator[str]:
    """What the blocks say of each question, in sentences; nothing where none is asked."""
    blocks = Blocks(sweep, journal)
    if blocks.asked:
        yield "Answers:"
        for answer in blocks.answers():
            yield f"  {answer.asked.name}: {' '.join([sentence_of(answer), *notes_of(answer)])}"


def _verdicts(sweep: Sweep, found: Standings) -> Iterator[str]:
    """Confirmations, violated constraints, and how the best trial compares with a trivial model."""
    for trial in found.best:
        if trial.number in found.confirmations:
            confirmation = found.confirmations[trial.number].in_words()
            yield f"Trial {trial.number} with fresh seeds, 95 % intervals: {confirmation}"
    for number in found.infeasible:
        violated = [each for each in sweep.constraints if each.violation(found.metrics[number]) > 0]
        yield f"Trial {number} violates {', '.join(map(str, violated))}"
    yield found.scales.in_words()
    if found.best:
        best = found.best[0].number
        s1, _ = found.scales.scores(found.metrics[best])
        worse = "; that is worse than the baseline: train longer, or widen the space" if s1 > 1 else ""
        yield f"Best: trial {best}, with {s1:.0%} of the baseline's pixel MSE{worse}."


def next_commands(sweep: Sweep, journal: Journal, best: int) -> str:
    """What to type after a sweep; `best` is its best trial."""
    name, run_id = sweep.config.name, journal.trial(best).run_id
    if run_id is None or Outbox(journal).undelivered():
        return f"\nNext, once MLflow is available:\n  {sync_command(name)}"
    store = at_store(tracking_uri(sweep.config.tracking.uri))
    here = store if JOB in os.environ else ""  # where the sweep is known, so is its store
    return f"\nNext:\n  {here}vaegan ui {name}\n  {here}vaegan promote {name}\n  {store}vaegan rerun {run_id}"
