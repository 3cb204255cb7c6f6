"""Builds and runs the Tuner. A sweep, a resumed sweep and a retried trial are one act: derive everything from the
journal, put unfinished trials first, start a Tuner."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import ray
import yaml
from ray import tune
from rich.console import Console

from search.config import JOURNAL_FILE, Sweep, parse_sweep, sweeps_directory
from search.journal import FINAL_OUTCOMES, Journal
from search.live import SweepView, stage
from search.optuna_search import OptunaSearch, trial_directory
from search.results import publish_results
from search.scheduler import PAYLOAD, Rungs, SweepScheduler
from search.tracking import Tracker
from search.trial import discard_checkpoint, discard_trial, run_trial
from vaegan_core.features import FrameFeatures, ensure_features
from vaegan_core.frames import FrameSet

LOCK_FILE = "driver.lock"
DELIVERY_SECONDS = 120.0
CONNECT_SECONDS = 5.0
PUBLISHED = "published"

# Read by Ray when it starts; a user's own settings win.
RAY_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


@dataclass
class StopFlag:
    """Why the sweep should stop, "" while it should not. Running trials stop at their next evaluation."""

    reason: str = ""
    deadline: float | None = None
    presses: int = 0

    def __call__(self) -> bool:
        if not self.reason and self.deadline is not None and time.monotonic() > self.deadline:
            self.reason = "the time budget is used up"
        return bool(self.reason)


# --- Making, opening, locking -----------------------------------------------------------------------------------------


def create_sweep(sweep: Sweep, console: Console) -> Path:
    """Writes the journal of a new sweep and returns its directory. Raises ValueError where the name is taken."""
    directory = sweeps_directory() / sweep.config.name
    if (directory / JOURNAL_FILE).exists():
        raise ValueError(
            f"a sweep named {sweep.config.name} exists in {directory}; "
            f"go on with it (vaegan resume {sweep.config.name}) or choose another name (--set name=…)"
        )
    frame_set, features = open_frames(sweep, console)
    Journal.create(
        directory / JOURNAL_FILE,
        id=uuid.uuid4().hex,
        sweep=sweep.config.to_yaml(),
        frames=frame_set.fingerprint,
        features=features.fingerprint,
        baselines=json.dumps(features.baselines | {"floor": features.floor}),
    ).close()
    return directory


def discard_if_untouched(directory: Path) -> None:
    """Removes a sweep that could not start: no trial was drawn, so its name is free again."""
    journal = Journal(directory / JOURNAL_FILE)
    untouched = not journal.trials()
    journal.close()
    if untouched:
        shutil.rmtree(directory)


def create_or_reopen(sweep: Sweep, console: Console) -> Path:
    """The directory of this very sweep: as it is when it was begun before, new otherwise.

    Raises ValueError when another sweep has its name.
    """
    directory = sweeps_directory() / sweep.config.name
    if not (directory / JOURNAL_FILE).exists():
        return create_sweep(sweep, console)
    if open_sweep(sweep.config.name)[0].config != sweep.config:
        raise ValueError(
            f"the sweep in {directory} was begun with another YAML; choose another name (--set name=…), "
            f"or go on with it as it was begun: vaegan resume {sweep.config.name}"
        )
    return directory


def open_sweep(name: str) -> tuple[Sweep, Path]:
    """The sweep of that name as it was started. Raises ValueError naming those that exist."""
    directory = sweeps_directory() / name
    if not (directory / JOURNAL_FILE).is_file():
        existing = sorted(path.parent.name for path in sweeps_directory().glob(f"*/{JOURNAL_FILE}"))
        raise ValueError(f"there is no sweep named {name}; there are: {', '.join(existing) or 'none'}")
    journal = Journal(directory / JOURNAL_FILE)
    sweep = parse_sweep(yaml.safe_load(journal.meta("sweep")), str(directory / JOURNAL_FILE))
    journal.close()
    return sweep, directory


def open_frames(sweep: Sweep, console: Console) -> tuple[FrameSet, FrameFeatures]:
    """The sweep's frames and their feature network, trained now when it is missing."""
    frame_set = FrameSet.open(sweep.config.base["frames"])
    with stage(console, "Reading the frame set and its feature network") as say_more:

        def progress(done: int, total: int) -> None:
            say_more(f"Training the frame set's feature network: {done} of {total} steps")

        return frame_set, ensure_features(frame_set, progress)


@contextmanager
def lease(directory: Path) -> Iterator[None]:
    """Keeps a second driver off the sweep; the kernel releases it however this process ends."""
    with (directory / LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"another process is running the sweep in {directory}; wait for it or stop it") from None
        yield


@contextmanager
def interruptible(stop: StopFlag, console: Console) -> Iterator[None]:
    """Ctrl-C (or SIGTERM) once: stop cleanly; twice: at once. Either way `vaegan resume` goes on from there."""

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.presses += 1
        stop.reason = stop.reason or "interrupted"
        if stop.presses > 1:
            raise KeyboardInterrupt
        console.print("Stopping: running trials stop at their next evaluation. Once more to stop at once.")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


# --- Running ----------------------------------------------------------------------------------------------------------


def run_sweep(sweep: Sweep, directory: Path, console: Console, *, address: str | None = None) -> str:
    """Runs what is left of a sweep, here or on the Ray cluster at `address`; returns why it stopped early, or ""."""
    hours = sweep.config.budget.hours
    stop = StopFlag(deadline=time.monotonic() + hours * 3600 if hours else None)
    with lease(directory), interruptible(stop, console):
        journal = Journal(directory / JOURNAL_FILE)
        if journal.meta(PUBLISHED, ""):
            console.print(f"The sweep {sweep.config.name} is done.", highlight=False)
            return ""
        frame_set, features = open_frames(sweep, console)
        check_same_frames(journal, frame_set, features)
        say_what_is_left(sweep, journal, console)
        view = SweepView(sweep, journal, console)
        tracker = Tracker(sweep, directory / JOURNAL_FILE, view.say)
        if anything_left(sweep, journal):
            with stage(console, "Starting Ray"):
                start_ray(sweep, address)
        tracker.start()
        try:
            if anything_left(sweep, journal):
                run_tuner(sweep, directory, journal, frame_set, features, stop, view)
            interrupt_unfinished(journal)
            with stage(console, "Delivering the last curves to MLflow"):
                delivered = tracker.close(DELIVERY_SECONDS)
        finally:
            interrupt_unfinished(journal)
            tracker.close(5.0)
        stopped = stop.reason if anything_left(sweep, journal) else ""
        if delivered:
            with stage(console, "Writing results to MLflow, and the report"):
                publish_results(sweep, directory, journal, tracker.uri, stopped)
            if not stopped:
                journal.set_meta(PUBLISHED, "yes")
        else:
            console.print(f"MLflow lacks a part of the curves; `vaegan resume {sweep.config.name}` delivers the rest.")
        journal.close()
    return stopped


def check_same_frames(journal: Journal, frame_set: FrameSet, features: FrameFeatures) -> None:
    """Raises ValueError when the frames are not those that the sweep began with: its numbers would not compare."""
    for what, before, now in (
        ("frames", journal.meta("frames"), frame_set.fingerprint),
        ("feature network of the frames", journal.meta("features"), features.fingerprint),
    ):
        if before != now:
            raise ValueError(f"the {what} at {frame_set.path} changed since the sweep began: {before} then, {now} now")


def say_what_is_left(sweep: Sweep, journal: Journal, console: Console) -> None:
    trials = journal.trials()
    ended = sum(trial.outcome in FINAL_OUTCOMES for trial in trials)
    unfinished = [trial for trial in trials if trial.outcome not in FINAL_OUTCOMES]
    if trials:
        steps = ", ".join(f"{trial.number} (step {trial.step})" for trial in unfinished)
        console.print(
            f"Trials done and kept: {ended}; that go on from their checkpoints: {len(unfinished)}"
            f"{' — ' + steps if steps else ''}; still to be drawn: {sweep.config.budget.trials - len(trials)}.",
            highlight=False,
        )


def anything_left(sweep: Sweep, journal: Journal) -> bool:
    trials = journal.trials()
    return len(trials) < sweep.config.budget.trials or any(trial.outcome not in FINAL_OUTCOMES for trial in trials)


def interrupt_unfinished(journal: Journal) -> None:
    for trial in journal.trials():
        if trial.outcome == "running":
            journal.end_trial(trial.number, "interrupted", "the driver ended")


def run_tuner(
    sweep: Sweep,
    directory: Path,
    journal: Journal,
    frame_set: FrameSet,
    features: FrameFeatures,
    stop: StopFlag,
    view: SweepView,
) -> None:
    """One Tuner over everything unfinished and everything still to be drawn; ends Ray."""
    try:
        slots = concurrent_trials(sweep, ray.cluster_resources())
        view.say(f"Up to {slots} trials at a time; each takes {_share(sweep)}.")

        resources = sweep.config.resources
        search, scheduler = make_search(sweep, journal, directory, slots, stop)
        trainable = tune.with_parameters(
            run_trial, frame_set=in_memory(frame_set), features=features, threads=resources.cpu
        )
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": resources.cpu, "gpu": resources.gpu}),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=scheduler,
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(directory.resolve()),
                callbacks=[SweepCallback(journal, directory, view)],
                verbose=0,
            ),
        )
        with view:
            tuner.fit()
            view.refresh(force=True)
    finally:
        ray.shutdown()


def make_search(
    sweep: Sweep, journal: Journal, directory: Path, slots: int, stop: Callable[[], bool]
) -> tuple[OptunaSearch, SweepScheduler]:
    """What suggests trials and what judges their reports, both continuing from the journal; `slots` run at a time."""
    rungs = Rungs(sweep.rungs, getattr(sweep.config.scheduler, "reduction_factor", 2), journal.rungs())
    search = OptunaSearch(sweep, journal, directory.resolve(), max_concurrent=slots, stop_requested=stop)
    return search, SweepScheduler(journal, rungs, sweep.config.objectives, stop)


class SweepCallback(tune.Callback):  # type: ignore[misc]
    """Keeps Tune's own state small, frees the disk of ended trials, refreshes the view."""

    def __init__(self, journal: Journal, directory: Path, view: SweepView) -> None:
        self.journal = journal
        self.directory = directory
        self.view = view

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; ours derives everything from the journal."""
        return {}

    def on_trial_result(self, **info: Any) -> None:
        info["result"].pop(PAYLOAD, None)

    def on_trial_complete(self, **info: Any) -> None:
        number = info["trial"].config["trial"]
        outcome, files = self.journal.outcome(number), trial_directory(self.directory, number)
        if outcome == "completed":
            discard_checkpoint(files)
        elif outcome in FINAL_OUTCOMES:
            discard_trial(files)

    def on_step_end(self, **info: Any) -> None:  # noqa: ARG002
        self.view.refresh()


def start_ray(sweep: Sweep, address: str | None) -> None:
    """A private local cluster, or the one at `address` (host:port of its head)."""
    for key, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    check_reachable(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    if address is not None:
        options = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(address=address or "local", **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"Ray at {address or 'this machine'} cannot be reached: {error}") from None
    needed = sweep.config.resources
    available = ray.cluster_resources()
    for kind, amount in (("CPU", needed.cpu), ("GPU", needed.gpu)):
        if amount > available.get(kind, 0):
            ray.shutdown()
            raise ValueError(
                f"one trial needs resources.{kind.lower()} {amount}, but Ray has {available.get(kind, 0):g} {kind}"
            )


def check_reachable(address: str | None) -> None:
    """Raises ValueError when nothing listens at host:port; Ray itself would try for minutes."""
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--cluster must look like host:port (the head's, usually 6379) or auto, but got {address}")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ValueError(f"no Ray cluster can be reached at {address}: {error}") from None


def concurrent_trials(sweep: Sweep, available: dict[str, float]) -> int:
    """How many trials fit at once, at most `resources.max_concurrent`."""
    resources = sweep.config.resources
    slots = int(available.get("CPU", 0) / resources.cpu)
    if resources.gpu:
        slots = min(slots, int(available.get("GPU", 0) / resources.gpu + 1e-9))
    return max(1, min(slots, resources.max_concurrent or slots))


def _share(sweep: Sweep) -> str:
    resources = sweep.config.resources
    cpu = f"{resources.cpu} CPU core" + ("s" if resources.cpu > 1 else "")
    return f"{cpu} and {resources.gpu:g} GPU" if resources.gpu else cpu


def in_memory(frame_set: FrameSet) -> FrameSet:
    """The same frames as a plain array, which Ray's object store shares without copies per trial."""
    return FrameSet(np.asarray(frame_set.frames), frame_set.manifest, None)
