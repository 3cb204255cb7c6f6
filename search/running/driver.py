"""Runs a sweep. A new sweep, a resumed sweep and a retried trial are one act: derive everything from the journal, put
unfinished trials first, start a Tuner."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from search.advice import resume_command, sync_command
from search.cluster.connect import connect, find_room
from search.cluster.nodes import node_here, working_nodes
from search.config.sweep import Sweep
from search.journal.database import JournalError
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.outbox import Outbox
from search.journal.questions import Registered, register
from search.journal.records import FileKind
from search.lease import lease
from search.names import FINAL_OUTCOMES, UNFINISHED_OUTCOMES, Outcome
from search.paths import JOURNAL_FILE, tracking_uri
from search.provenance import code_version
from search.running.devices import check_devices, restore_wishes
from search.running.gpu_share import with_gpu_share
from search.running.keeping import find_states
from search.running.ready_nodes import leave_out_unfit
from search.running.stop_flag import StopFlag, interruptible
from search.running.sweep_frames import SweepFrames, check_same_frames, in_memory, open_frames
from search.running.tuner import View, run_tuner
from search.standings.blocks import Blocks
from search.standings.standings import missing_replicates, standings
from search.storage.frames import fetch_frames
from search.storage.place import Place
from search.storage.store import Store
from search.storage.stored_sweep import hold
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
class Ground:
    """Where a sweep runs, and where it lives."""

    cluster: str | None = None
    """Address of a Ray cluster's head, or auto; None: Ray is started on this machine."""
    storage: str = ""
    """URI of the storage that outlasts this machine; "" where the sweep has none."""


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
    ground: Ground,
    frames: SweepFrames | None = None,
) -> SweepEnd:
    """Runs what is left of a sweep, with `frames` if they are open already. Its journal is shipped to its storage, and
    fetched from there where another machine has gone on with it.

    `load` gives the sweep and may change it first: it is called under the lease, which is held to the end.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with lease(directory), hold(directory, ground.storage, screen.say) as held:
        sweep = load()
        journal = Journal(directory / JOURNAL_FILE)
        if journal.meta(Meta.PUBLISHED, ""):
            screen.say(f"The sweep {sweep.config.name} is complete.")
            journal.close()
            return SweepEnd(sweep, stopped="", delivered=True, ran=False)
        stop = StopFlag(sweep, journal, directory)  # first of all: forgets what an earlier driver was asked
        interrupt_unfinished(journal)
        say_registered(register(sweep, journal), screen)
        frames = frames or open_frames(sweep, screen, fetch=partial(fetched_frames, held.place, journal))
        check_same_frames(journal, frames)
        find_states(journal, held.place.files())
        say_what_is_left(sweep, journal, screen)
        if anything_left(sweep, journal):
            with screen.stage("Starting Ray"):
                start_ray(sweep, ground.cluster, held.place, screen)
            if ground.cluster is not None:
                held = replace(held, left_out=leave_out_unfit(held.place, sweep, frames, screen))
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
                    run_tuner(sweep, held, journal, frames, stop, view)
                interrupt_unfinished(journal)
                stopped = stop.reason if anything_left(sweep, journal) else ""
                held.flush()
                delivered = deliver(tracker, journal, stopped, DELIVERY_SECONDS, screen)
                say_delivery(sweep, journal, delivered, screen)
                if delivered and not stopped:
                    mark_complete(held.place, journal)
            finally:
                with suppress(JournalError):  # the next driver does the same when it starts
                    interrupt_unfinished(journal)
                tracker.close(LAST_SECONDS, "cut off")
        journal.close()
    return SweepEnd(sweep, stopped, delivered)


def fetched_frames(place: Place, journal: Journal) -> Path | None:
    """The sweep's frames as its storage has them; None where it has no storage."""
    return fetch_frames(Store(place.storage), journal.meta(Meta.FRAMES)) if place.is_shared else None


def start_ray(sweep: Sweep, cluster: str | None, place: Place, screen: Screen) -> None:
    """Starts Ray here or connects to the cluster. Raises ValueError where the sweep's trials cannot run there."""
    connect(cluster)
    check_files_are_reached(place)  # before an autoscaler is asked for a node
    find_room(sweep, cluster, screen.say)


def check_files_are_reached(place: Place) -> None:
    """Raises ValueError where trials would run on machines that do not have the sweep's directory."""
    here, working = node_here(), {node["NodeID"] for node in working_nodes()}
    if working != {here} and not place.is_shared:
        which = f"the cluster has {len(working | {here})} hosts" if working else "the cluster waits for its hosts"
        raise ValueError(
            f"{which}, which must all reach the sweep's files: name a bucket or a directory "
            "that is mounted on each of them (--storage s3://…, or VAEGAN_STORAGE, or storage in the YAML)"
        )


def deliver(tracker: Tracker, journal: Journal, stopped: str, seconds: float, screen: Screen) -> bool:
    """Waits up to `seconds` until MLflow has everything; whether it has, by the journal."""
    with screen.stage("Delivering the last curves and the results to MLflow"):
        return tracker.close(seconds, stopped) and not Outbox(journal).unsent()


def mark_complete(place: Place, journal: Journal) -> None:
    """Notes that everything is done and delivered, and deletes what only a running sweep needs: also what an attempt
    saved on a machine that was lost before the storage heard of it."""
    saved = [record for trial in journal.trials() for record in journal.saved_of(trial.number)]
    journal.forget(record for record in saved if record.kind == FileKind.STATE)
    place.files().delete_all_others({record.key for record in saved if record.kind == FileKind.MODEL})
    journal.set_meta(Meta.PUBLISHED, "yes")


def say_delivery(sweep: Sweep, journal: Journal, delivered: bool, screen: Screen) -> None:
    """Says what did not reach MLflow, or what MLflow rejected; nothing where it has everything."""
    name, outbox = sweep.config.name, Outbox(journal)
    if not delivered:
        missing = " and ".join(outbox.unsent()) or "Some results"
        screen.say(
            f"{missing} did not reach MLflow (the server was unavailable). Run `{sync_command(name)}` to send them."
        )
        return
    sent = json.loads(journal.meta(Meta.MODELS_SENT, "{}"))
    for number in kept_models(sweep, journal):
        if str(number) not in sent:
            screen.say(f"The weights of trial {number}, one of the best, are not in MLflow: they were not kept.")
    refused = outbox.refused()
    if refused:
        items = "1 item. It is" if len(refused) == 1 else f"{len(refused)} items. They are"
        screen.say(f"MLflow rejected {items} kept in the journal; `{sync_command(name)}` retries:")
    for record in refused[:REFUSALS_SHOWN]:
        screen.say(f"  {record.what}: {record.reason}")
    if len(refused) > REFUSALS_SHOWN:
        screen.say(f"  and {len(refused) - REFUSALS_SHOWN} more")


def kept_models(sweep: Sweep, journal: Journal) -> list[int]:
    """Numbers of the trials whose weights MLflow should have."""
    return [trial.number for trial in standings(sweep, journal).best[: sweep.config.tracking.keep_models]]


def sync_sweep(sweep: Sweep, directory: Path, screen: Screen, *, storage: str = "") -> bool:
    """Sends MLflow everything that is in the journal and not in MLflow; whether all of it arrived.

    Raises ValueError while a driver runs the sweep: the driver delivers by itself.
    """
    with lease(directory), hold(directory, storage, screen.say) as held:
        journal = Journal(directory / JOURNAL_FILE)
        interrupt_unfinished(journal)
        tracker = Tracker(directory, screen.say)
        tracker.start()
        try:
            stopped = "interrupted" if anything_left(sweep, journal) else ""
            held.flush()
            arrived = deliver(tracker, journal, stopped, SYNC_SECONDS, screen)
        finally:
            tracker.kill()
        say_delivery(sweep, journal, arrived, screen)
        if arrived and not stopped:
            mark_complete(held.place, journal)
        if arrived and not Outbox(journal).refused():
            uri = tracking_uri(sweep.config.tracking.uri)
            screen.say(f"Everything of {sweep.config.name} is in MLflow at {uri}.")
        journal.close()
    return arrived


def say_what_is_left(sweep: Sweep, journal: Journal, screen: Screen) -> None:
    """Says what a resumed sweep keeps, resumes and still draws, and whether the code has changed."""
    if not journal.next_number():
        return
    counts = journal.counts()
    finished = sum(counts.get(outcome, 0) for outcome in FINAL_OUTCOMES)
    unfinished = journal.trials(*UNFINISHED_OUTCOMES)
    states = {trial.number: journal.state_to_go_on_from(trial.number) for trial in unfinished}
    saved = {number: state.step if state else 0 for number, state in states.items()}
    to_run = sweep.num_trials - journal.num_drawn() + Blocks(sweep, journal).to_come
    steps = ", ".join(f"{number} at step {step}" for number, step in saved.items())
    screen.say(
        f"{counted(finished, 'trial')} finished, {len(unfinished)} will resume from checkpoints"
        f"{f' ({steps})' if steps else ''}, {to_run} still to run."
    )
    behind = [f"{trial.number} (step {trial.step})" for trial in unfinished if saved[trial.number] < trial.step]
    if behind:
        screen.say(f"These trials had come further than the checkpoints that are there: {', '.join(behind)}.")
    failed = counts.get(Outcome.FAILED, 0)
    if failed:
        retry = resume_command(sweep.config.name, "--retry-failed")
        screen.say(f"{failed} failed; `{retry}` retries them.")
    code, now = journal.meta(Meta.CODE, ""), code_version()
    if code != now:
        screen.say(f"The code has changed since the sweep began: {code or 'unknown'} then, {now or 'unknown'} now.")


def say_registered(questions: Sequence[Registered], screen: Screen) -> None:
    """Says which questions are new, and by what anybody can tell later that they were not changed."""
    for each in questions:
        again = f", for its text has changed since {each.given} was registered" if each.name != each.given else ""
        screen.say(f"Registered the question {each.name} ({each.hash[:12]}){again}.")


def anything_left(sweep: Sweep, journal: Journal) -> bool:
    """Whether there are trials to run, to draw or to confirm."""
    if journal.trials(*UNFINISHED_OUTCOMES) or journal.num_drawn() < sweep.num_trials or Blocks(sweep, journal).left:
        return True
    return bool(missing_replicates(sweep, journal))


def interrupt_unfinished(journal: Journal) -> None:
    """Marks trials that were running under a driver that has ended as interrupted."""
    for trial in journal.trials(Outcome.RUNNING):
        journal.end_trial(trial.number, Outcome.INTERRUPTED, "the driver ended")
    journal.close_attempts()
