"""Builds and runs the Tuner. A sweep, a resumed sweep and a retried trial are one act: derive everything from the
journal, put unfinished trials first, start a Tuner."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.tune import TuneError
from rich.console import Console

from search.commands.live import SweepView
from search.commands.results import try_to_write_report
from search.config.sweep_config import Sweep
from search.journal.journal import FINAL_OUTCOMES, Journal
from search.journal.sweeps import PUBLISHED, check_inception, lease, open_frames
from search.names import MODEL_ARTIFACT
from search.paths import JOURNAL_FILE, tracking_uri, trial_directory
from search.provenance import code_version
from search.redaction import redact
from search.running.gpu_share import with_gpu_share
from search.running.scheduler import SweepScheduler
from search.running.searcher import OptunaSearch
from search.running.stop_flag import STOP_MINUTES, StopFlag
from search.running.trial import PAYLOAD, discard_checkpoint, discard_trial, run_trial
from search.standings.standings import best_of, missing_replicates
from search.strategy.population import discard_states
from search.terminal import stage
from search.tracking.tracker import Tracker
from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.frame_features import FrameFeatures

DELIVERY_SECONDS = 120.0
"""How long the end of a sweep waits for MLflow."""
SYNC_SECONDS = 3600.0
LAST_SECONDS = 5.0
"""The same where a person or an error cuts the sweep off."""
CONNECT_SECONDS = 5.0
REFUSALS_SHOWN = 10

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


@contextmanager
def interruptible(stop: StopFlag, console: Console) -> Iterator[None]:
    """Ctrl-C (or SIGTERM) once: stop cleanly; twice: at once. Either way `vaegan resume` goes on from there."""

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.presses += 1
        stop.reason = stop.reason or "interrupted"
        if stop.presses > 1:
            raise KeyboardInterrupt
        console.print(
            f"Stopping: running trials stop at their next evaluation, at the latest in {STOP_MINUTES:g} minutes. "
            "Once more to stop at once."
        )

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


# --- Running ----------------------------------------------------------------------------------------------------------


def run_sweep(sweep: Sweep, directory: Path, console: Console, *, address: str | None = None) -> str:
    """Runs what is left of a sweep, here or on the Ray cluster at `address`; returns why it stopped early, or ""."""
    with lease(directory):
        journal = Journal(directory / JOURNAL_FILE)
        if journal.meta(PUBLISHED, ""):
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
        lacking = f"{journal.undelivered():,} curve points" if journal.undelivered() else "a part of the sweep"
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
        journal.set_meta(PUBLISHED, "yes")
    return True


def say_refusals(sweep: Sweep, journal: Journal, console: Console) -> None:
    refused = journal.refused()
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
        if arrived and not journal.refused():
            uri = redact(tracking_uri(sweep.config.tracking.uri))
            console.print(f"Everything of {sweep.config.name} is in MLflow at {uri}.", highlight=False)
        journal.close()
    return arrived


def check_same_frames(journal: Journal, frame_set: FrameSet, features: FrameFeatures) -> None:
    """Raises ValueError when the frames are not those that the sweep began with: its numbers would not compare."""
    for what, before, now in (
        ("frames", journal.meta("frames"), frame_set.fingerprint),
        ("feature network of the frames", journal.meta("features"), features.fingerprint),
    ):
        if before != now:
            raise ValueError(f"the {what} at {frame_set.path} changed since the sweep began: {before} then, {now} now")


def say_what_is_left(sweep: Sweep, journal: Journal, console: Console) -> None:
    """What a resumed sweep keeps, retries and draws, and whether the code is another one."""
    if not journal.next_number():
        return
    counts = journal.counts()
    ended = sum(counts.get(outcome, 0) for outcome in FINAL_OUTCOMES)
    unfinished = journal.trials("running", "interrupted")
    steps = ", ".join(f"{trial.number} (step {trial.step})" for trial in unfinished)
    console.print(
        f"Trials done and kept: {ended}; that go on from their checkpoints: {len(unfinished)}"
        f"{' — ' + steps if steps else ''}; still to be drawn: {sweep.num_trials - journal.num_drawn()}; "
        "dropped: none.",
        highlight=False,
    )
    if counts.get("failed", 0):
        console.print(f"{counts['failed']} failed; `vaegan resume {sweep.config.name} --retry-failed` tries again.")
    code, now = journal.meta("code", ""), code_version()
    if code != now:
        console.print(f"The code has changed: {code or 'unknown'} then, {now or 'unknown'} now.", highlight=False)


def anything_left(sweep: Sweep, journal: Journal) -> bool:
    """Trials to run, to draw or to confirm."""
    if journal.trials("running", "interrupted") or journal.num_drawn() < sweep.num_trials:
        return True
    return bool(missing_replicates(sweep, journal))


def interrupt_unfinished(journal: Journal) -> None:
    """No driver runs: what was running is interrupted."""
    for trial in journal.trials("running"):
        journal.end_trial(trial.number, "interrupted", "the driver ended")
    journal.close_attempts()


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
                callbacks=[SweepCallback(sweep, journal, directory, stop, view)],
                verbose=0,
            ),
        )
        with view:
            tuner.fit()
            view.refresh(force=True)
    except (TuneError, sqlite3.Error) as error:
        raise ValueError(
            f"the sweep was cut off: {str(error).strip().splitlines()[-1]}. Nothing that was reported is lost; when "
            f"the cause is gone, go on with: vaegan resume {sweep.config.name}"
        ) from error
    finally:
        ray.shutdown()


def make_search(
    sweep: Sweep, journal: Journal, directory: Path, slots: int, stop: Callable[[], bool]
) -> tuple[OptunaSearch, SweepScheduler]:
    """What suggests trials and what judges their reports, both continuing from the journal; `slots` run at a time."""
    directory = directory.resolve()
    search = OptunaSearch(sweep, journal, directory, max_concurrent=slots, stop_requested=stop)
    return search, SweepScheduler(sweep, journal, directory, stop)


class SweepCallback(tune.Callback):  # type: ignore[misc]
    """Keeps Tune's own state small, frees the disk of ended trials, looks at the budget, refreshes the view."""

    def __init__(self, sweep: Sweep, journal: Journal, directory: Path, stop: StopFlag, view: SweepView) -> None:
        self.sweep = sweep
        self.journal = journal
        self.directory = directory
        self.stop = stop
        self.view = view
        self._with_models = {
            trial.number
            for trial in journal.trials("completed")
            if (trial_directory(directory, trial.number) / MODEL_ARTIFACT).is_file()
        }

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; ours derives everything from the journal."""
        return {}

    def on_trial_result(self, **info: Any) -> None:
        info["result"].pop(PAYLOAD, None)

    def on_trial_complete(self, **info: Any) -> None:
        number = info["trial"].config["trial"]
        outcome, files = self.journal.outcome(number), trial_directory(self.directory, number)
        if outcome == "completed" and not info["trial"].config["replicate"]:
            discard_checkpoint(files)
            self._keep_best_models(number)
        elif outcome in FINAL_OUTCOMES:
            discard_trial(files)

    def _keep_best_models(self, number: int) -> None:
        """Of the trials with a model and this one, the worst loses it when there are more than are wanted."""
        config = self.sweep.config
        most = max(config.tracking.keep_models, config.confirm.top if config.confirm else 0)
        self._with_models.add(number)
        for worse in best_of(self.sweep, self.journal, self._with_models)[most:]:
            discard_trial(trial_directory(self.directory, worse))
            self._with_models.remove(worse)

    def on_step_end(self, **info: Any) -> None:  # noqa: ARG002
        self.stop.look()
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
    for kind, amount in (("CPU", needed.cpu), ("GPU", 0.0 if needed.gpu == "auto" else needed.gpu)):
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
    gpu = float(resources.gpu)
    if gpu:
        slots = min(slots, int(available.get("GPU", 0) / gpu + 1e-9))
    return max(1, min(slots, resources.max_concurrent or slots))


def _share(sweep: Sweep) -> str:
    resources = sweep.config.resources
    cpu = f"{resources.cpu} CPU core" + ("s" if resources.cpu > 1 else "")
    return f"{cpu} and {float(resources.gpu):g} GPU" if resources.gpu else cpu


def in_memory(frame_set: FrameSet) -> FrameSet:
    """The same frames as a plain array, which Ray's object store shares without copies per trial."""
    return FrameSet(np.asarray(frame_set.frames), frame_set.manifest, None)
