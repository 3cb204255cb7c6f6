"""Runs a sweep. A new sweep, a resumed sweep and a retried trial are one act: derive everything from the journal, put
unfinished trials first, start a Tuner."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from search.cluster.connect import start_ray
from search.cluster.nodes import check_shared
from search.config.sweep import Sweep
from search.journal.database import JournalError
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.outbox import Outbox
from search.lease import lease
from search.names import FINAL_OUTCOMES, UNFINISHED_OUTCOMES, Outcome
from search.paths import JOURNAL_FILE, tracking_uri, trial_directory
from search.provenance import code_version
from search.running.devices import check_devices, restore_wishes
from search.running.gpu_share import with_gpu_share
from search.running.stop_flag import StopFlag, interruptible
from search.running.sweep_frames import SweepFrames, check_same_frames, in_memory, open_frames
from search.running.trial_files import discard_states, saved_step
from search.running.tuner import View, run_tuner
from search.standings.standings import missing_replicates, standings
from search.terminal import Screen, counted
from search.tracking.tracker import Tracker

DELIVERY_SECONDS = 120.0
"""How long the end of a sweep waits for MLflow."""
SYNC_SECONDS = 3600.0
"""How long `vaegan sync` waits for MLflow."""
LAST_SECONDS = 5.0
"""How long a sweep that was cut off by a person or an error waits for MLflow."""
REFUSALS_SHOWN = 10

Used = Callable[[], Mapping[str, tuple[float, float]]]
"""(used, budget) of every budget that is set, by name."""
MakeView = Callable[[Sweep, Journal, Screen, Used], View]


@dataclass(frozen=True)
class SweepEnd:
    """How a run of the driver ended."""

    sweep: Sweep
    """What was run."""
    stopped: str
    """Why the sweep stopped early; "" when it is complete."""
    delivered: bool
    """Whether MLflow has everything."""
    ran: bool = True
    """False: it was complete already."""


def run_sweep(
    load: Callable[[], Sweep],
    directory: Path,
    screen: Screen,
    make_view: MakeView,
    *,
    address: str | None = None,
    frames: SweepFrames | None = None,
) -> SweepEnd:
    """Runs what is left of a sweep, here or on the Ray cluster at `address`, with `frames` if they are open already.

    `load` gives the sweep and may change it first: it is called under the lease, which is held to the end.
    """
    with lease(directory):
        sweep = load()
        journal = Journal(directory / JOURNAL_FILE)
        if journal.meta(Meta.PUBLISHED, ""):
            screen.say(f"The sweep {sweep.config.name} is complete.")
            journal.close()
            return SweepEnd(sweep, stopped="", delivered=True, ran=False)
        stop = StopFlag(sweep, journal, directory)  # first of all: forgets what an earlier driver was asked
        interrupt_unfinished(journal)
        frames = frames or open_frames(sweep, screen)
        check_same_frames(journal, frames)
        say_what_is_left(sweep, journal, directory, screen)
        if anything_left(sweep, journal):
            with screen.stage("Starting Ray"):
                start_ray(sweep, address)
                if address is not None:
                    check_shared(directory)
            sweep = with_gpu_share(sweep, in_memory(frames.frame_set), frames.features, journal, screen)
            restore_wishes(sweep, journal)
            check_devices(sweep, journal, screen)
        stop.bill(sweep.config.resources)
        view = make_view(sweep, journal, screen, stop.used)
        tracker = Tracker(directory, screen.say)
        with interruptible(stop, screen):
            tracker.start()
            try:
                stop.look()
                if not stop() and anything_left(sweep, journal):
                    run_tuner(sweep, directory, journal, frames, stop, view)
                interrupt_unfinished(journal)
                stopped = stop.reason if anything_left(sweep, journal) else ""
                delivered = deliver(tracker, journal, stopped, DELIVERY_SECONDS, screen)
                say_delivery(sweep, journal, delivered, screen)
                if delivered and not stopped:
                    mark_complete(directory, journal)
            finally:
                with suppress(JournalError):  # the next driver does the same when it starts
                    interrupt_unfinished(journal)
                tracker.close(LAST_SECONDS, "cut off")
        journal.close()
    return SweepEnd(sweep, stopped, delivered)


def deliver(tracker: Tracker, journal: Journal, stopped: str, seconds: float, screen: Screen) -> bool:
    """Waits up to `seconds` until MLflow has everything; whether it has, by the journal."""
    with screen.stage("Delivering the last curves and the results to MLflow"):
        return tracker.close(seconds, stopped) and not Outbox(journal).unsent()


def mark_complete(directory: Path, journal: Journal) -> None:
    """Notes that everything is done and delivered, and deletes what only a running sweep needs."""
    discard_states(directory)
    journal.set_meta(Meta.PUBLISHED, "yes")


def say_delivery(sweep: Sweep, journal: Journal, delivered: bool, screen: Screen) -> None:
    """Says what did not reach MLflow, or what MLflow rejected; nothing where it has everything."""
    name, outbox = sweep.config.name, Outbox(journal)
    if not delivered:
        missing = " and ".join(outbox.unsent()) or "Some results"
        screen.say(
            f"{missing} did not reach MLflow (the server was unavailable). Run `vaegan sync {name}` to send them."
        )
        return
    sent = json.loads(journal.meta(Meta.MODELS_SENT, "{}"))
    for number in kept_models(sweep, journal):
        if str(number) not in sent:
            screen.say(f"The weights of trial {number}, one of the best, are not in MLflow: they were not kept.")
    refused = outbox.refused()
    if refused:
        items = "1 item. It is" if len(refused) == 1 else f"{len(refused)} items. They are"
        screen.say(f"MLflow rejected {items} kept in the journal; `vaegan sync {name}` retries:")
    for record in refused[:REFUSALS_SHOWN]:
        screen.say(f"  {record.what}: {record.reason}")
    if len(refused) > REFUSALS_SHOWN:
        screen.say(f"  and {len(refused) - REFUSALS_SHOWN} more")


def kept_models(sweep: Sweep, journal: Journal) -> list[int]:
    """Numbers of the trials whose weights MLflow should have."""
    return [trial.number for trial in standings(sweep, journal).best[: sweep.config.tracking.keep_models]]


def sync_sweep(sweep: Sweep, directory: Path, screen: Screen) -> bool:
    """Sends MLflow everything that is in the journal and not in MLflow; whether all of it arrived.

    Raises ValueError while a driver runs the sweep: the driver delivers by itself.
    """
    with lease(directory):
        journal = Journal(directory / JOURNAL_FILE)
        interrupt_unfinished(journal)
        tracker = Tracker(directory, screen.say)
        tracker.start()
        try:
            stopped = "interrupted" if anything_left(sweep, journal) else ""
            arrived = deliver(tracker, journal, stopped, SYNC_SECONDS, screen)
        finally:
            tracker.kill()
        say_delivery(sweep, journal, arrived, screen)
        if arrived and not stopped:
            mark_complete(directory, journal)
        if arrived and not Outbox(journal).refused():
            uri = tracking_uri(sweep.config.tracking.uri)
            screen.say(f"Everything of {sweep.config.name} is in MLflow at {uri}.")
        journal.close()
    return arrived


def say_what_is_left(sweep: Sweep, journal: Journal, directory: Path, screen: Screen) -> None:
    """Says what a resumed sweep keeps, resumes and still draws, and whether the code has changed."""
    if not journal.next_number():
        return
    counts = journal.counts()
    finished = sum(counts.get(outcome, 0) for outcome in FINAL_OUTCOMES)
    unfinished = journal.trials(*UNFINISHED_OUTCOMES)
    saved = {trial.number: saved_step(trial_directory(directory, trial.number)) for trial in unfinished}
    steps = ", ".join(f"{number} at step {step}" for number, step in saved.items())
    screen.say(
        f"{counted(finished, 'trial')} finished, {len(unfinished)} will resume from checkpoints"
        f"{f' ({steps})' if steps else ''}, {sweep.num_trials - journal.num_drawn()} still to run."
    )
    behind = [f"{trial.number} (step {trial.step})" for trial in unfinished if saved[trial.number] < trial.step]
    if behind:
        screen.say(f"These trials had come further than their checkpoints in {directory}/trials: {', '.join(behind)}.")
    failed = counts.get(Outcome.FAILED, 0)
    if failed:
        screen.say(f"{failed} failed; `vaegan resume {sweep.config.name} --retry-failed` retries them.")
    code, now = journal.meta(Meta.CODE, ""), code_version()
    if code != now:
        screen.say(f"The code has changed since the sweep began: {code or 'unknown'} then, {now or 'unknown'} now.")


def anything_left(sweep: Sweep, journal: Journal) -> bool:
    """Whether there are trials to run, to draw or to confirm."""
    if journal.trials(*UNFINISHED_OUTCOMES) or journal.num_drawn() < sweep.num_trials:
        return True
    return bool(missing_replicates(sweep, journal))


def interrupt_unfinished(journal: Journal) -> None:
    """Marks trials that were running under a driver that has ended as interrupted."""
    for trial in journal.trials(Outcome.RUNNING):
        journal.end_trial(trial.number, Outcome.INTERRUPTED, "the driver ended")
    journal.close_attempts()
