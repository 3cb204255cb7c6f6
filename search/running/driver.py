"""Builds and runs the Tuner. A sweep, a resumed sweep and a retried trial are one act: derive everything from the
journal, put unfinished trials first, start a Tuner."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from search.cluster.connect import start_ray
from search.commands.live import SweepView
from search.commands.results import try_to_write_report
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.outbox import Outbox
from search.journal.sweeps import lease
from search.names import FINAL_OUTCOMES, UNFINISHED_OUTCOMES, Outcome
from search.paths import JOURNAL_FILE, tracking_uri
from search.provenance import code_version
from search.redaction import redact
from search.running.gpu_share import with_gpu_share
from search.running.stop_flag import StopFlag, interruptible
from search.running.sweep_frames import check_inception, check_same_frames, in_memory, open_frames
from search.running.trial_files import discard_states
from search.running.tuner import run_tuner
from search.standings.standings import missing_replicates
from search.terminal import stage
from search.tracking.tracker import Tracker

DELIVERY_SECONDS = 120.0
"""How long the end of a sweep waits for MLflow."""
SYNC_SECONDS = 3600.0
LAST_SECONDS = 5.0
"""The same where a person or an error cuts the sweep off."""
REFUSALS_SHOWN = 10


# --- Running ----------------------------------------------------------------------------------------------------------


def run_sweep(sweep: Sweep, directory: Path, console: Console, *, address: str | None = None) -> str:
    """Runs what is left of a sweep, here or on the Ray cluster at `address`; returns why it stopped early, or ""."""
    with lease(directory):
        journal = Journal(directory / JOURNAL_FILE)
        if journal.meta(Meta.PUBLISHED, ""):
            console.print(f"The sweep {sweep.config.name} is done.", highlight=False)
            return ""
        interrupt_unfinished(journal)
        check_inception(sweep)
        frame_set, features = open_frames(sweep, console)
        check_same_frames(journal, frame_set, features)
        say_what_is_left(sweep, journal, console)
        if anything_left(sweep, journal):
            with stage(console, "Starting Ray"):
                start_ray(sweep, address)
            sweep = with_gpu_share(sweep, in_memory(frame_set), features, journal, console)
        stop = StopFlag(sweep, journal, directory)
        view = SweepView(sweep, journal, console, stop.used)
        tracker = Tracker(directory, view.say)
        with interruptible(stop, console):
            tracker.start()
            try:
                if anything_left(sweep, journal):
                    run_tuner(sweep, directory, journal, frame_set, features, stop, view)
                interrupt_unfinished(journal)
                stopped = stop.reason if anything_left(sweep, journal) else ""
                finish(sweep, directory, journal, tracker, stopped, console, DELIVERY_SECONDS)
            finally:
                with suppress(sqlite3.Error):  # the next driver does the same when it starts
                    interrupt_unfinished(journal)
                tracker.close(LAST_SECONDS, "cut off")
        journal.close()
    return stopped


def finish(
    sweep: Sweep,
    directory: Path,
    journal: Journal,
    tracker: Tracker,
    stopped: str,
    console: Console,
    seconds: float,
) -> bool:
    """Waits so long for everything to be in MLflow, then writes the report; whether everything has arrived."""
    with stage(console, "Delivering the last curves and the results to MLflow"):
        arrived = tracker.close(seconds, stopped)
    if not arrived:
        lacking = (
            f"{Outbox(journal).undelivered():,} curve points"
            if Outbox(journal).undelivered()
            else "a part of the sweep"
        )
        console.print(
            f"MLflow lacks {lacking}, for it could not be written to; `vaegan sync {sweep.config.name}` brings it "
            "there.",
            highlight=False,
        )
        return False
    say_refusals(sweep, journal, console)
    try_to_write_report(sweep, directory, console)
    if not stopped:
        discard_states(directory)
        journal.set_meta(Meta.PUBLISHED, "yes")
    return True


def say_refusals(sweep: Sweep, journal: Journal, console: Console) -> None:
    refused = Outbox(journal).refused()
    if not refused:
        return
    console.print(
        f"MLflow refused {len(refused)} things for good; they are in the journal, and "
        f"`vaegan sync {sweep.config.name}` offers them again:",
        highlight=False,
    )
    for record in refused[:REFUSALS_SHOWN]:
        console.print(f"  {record.what}: {record.reason}", highlight=False, markup=False)
    if len(refused) > REFUSALS_SHOWN:
        console.print(f"  and {len(refused) - REFUSALS_SHOWN} more", highlight=False)


def sync_sweep(sweep: Sweep, directory: Path, console: Console) -> bool:
    """Delivers to MLflow what the journal has and MLflow lacks; whether everything arrived.

    Raises ValueError while a driver runs the sweep: it delivers by itself.
    """
    with lease(directory):
        journal = Journal(directory / JOURNAL_FILE)
        interrupt_unfinished(journal)
        tracker = Tracker(directory, lambda line: console.print(line, highlight=False))
        tracker.start()
        try:
            stopped = "interrupted" if anything_left(sweep, journal) else ""
            arrived = finish(sweep, directory, journal, tracker, stopped, console, SYNC_SECONDS)
        finally:
            tracker.kill()
        if arrived and not Outbox(journal).refused():
            uri = redact(tracking_uri(sweep.config.tracking.uri))
            console.print(f"Everything of {sweep.config.name} is in MLflow at {uri}.", highlight=False)
        journal.close()
    return arrived


def say_what_is_left(sweep: Sweep, journal: Journal, console: Console) -> None:
    """What a resumed sweep keeps, retries and draws, and whether the code is another one."""
    if not journal.next_number():
        return
    counts = journal.counts()
    ended = sum(counts.get(outcome, 0) for outcome in FINAL_OUTCOMES)
    unfinished = journal.trials(*UNFINISHED_OUTCOMES)
    steps = ", ".join(f"{trial.number} (step {trial.step})" for trial in unfinished)
    console.print(
        f"Trials done and kept: {ended}; that go on from their checkpoints: {len(unfinished)}"
        f"{' — ' + steps if steps else ''}; still to be drawn: {sweep.num_trials - journal.num_drawn()}; "
        "dropped: none.",
        highlight=False,
    )
    if counts.get(Outcome.FAILED, 0):
        console.print(
            f"{counts[Outcome.FAILED]} failed; `vaegan resume {sweep.config.name} --retry-failed` tries again."
        )
    code, now = journal.meta(Meta.CODE, ""), code_version()
    if code != now:
        console.print(f"The code has changed: {code or 'unknown'} then, {now or 'unknown'} now.", highlight=False)


def anything_left(sweep: Sweep, journal: Journal) -> bool:
    """Trials to run, to draw or to confirm."""
    if journal.trials(*UNFINISHED_OUTCOMES) or journal.num_drawn() < sweep.num_trials:
        return True
    return bool(missing_replicates(sweep, journal))


def interrupt_unfinished(journal: Journal) -> None:
    """No driver runs: what was running is interrupted."""
    for trial in journal.trials(Outcome.RUNNING):
        journal.end_trial(trial.number, Outcome.INTERRUPTED, "the driver ended")
    journal.close_attempts()
