"""Ray's Tuner over everything that is left of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune import TuneError

from search.config.sweep import Sweep
from search.journal.database import JournalError
from search.journal.journal import Journal
from search.names import FINAL_OUTCOMES, Artifact, Outcome
from search.paths import trial_directory
from search.running.heartbeat import Pulse
from search.running.held_gpus import HeldGpus
from search.running.messages import discard_payload
from search.running.resources import concurrent_trials, share_in_words
from search.running.scheduler import SweepScheduler
from search.running.searcher import SweepSearcher
from search.running.stop_flag import StopFlag
from search.running.sweep_frames import SweepFrames, in_memory
from search.running.trial import run_trial
from search.running.trial_files import discard_checkpoint, discard_trial, has_checkpoint
from search.standings.progress import NOT_TOLD
from search.standings.standings import best_of
from search.strategy.stopping import make_rule
from search.terminal import counted


class View(Protocol):
    """What a person sees while the Tuner runs."""

    def __enter__(self) -> object: ...

    def __exit__(self, *exception: object) -> None: ...

    def say(self, message: str) -> None:
        """Shows one line that stays."""

    def refresh(self, reached: Mapping[int, int] = NOT_TOLD, *, force: bool = False) -> None:
        """Called whenever the driver has a moment; `reached` is the step of running trials since their evaluation."""


def run_tuner(
    sweep: Sweep,
    directory: Path,
    journal: Journal,
    frames: SweepFrames,
    stop: StopFlag,
    view: View,
) -> None:
    """Runs one Tuner over everything unfinished and everything still to be drawn; shuts Ray down."""
    try:
        slots = concurrent_trials(sweep, ray.cluster_resources())
        view.say(f"Up to {counted(slots, 'trial')} at a time, each with {share_in_words(sweep)}.")

        resources = sweep.config.resources
        search, scheduler = make_search(sweep, journal, directory, slots, stop)
        held = HeldGpus(journal, float(resources.gpu), search, stop, view.say)
        pulse = Pulse(directory)
        trainable = tune.with_parameters(
            run_trial,
            frame_set=in_memory(frames.frame_set),
            features=frames.features,
            threads=resources.cpu,
            heart=pulse.actor,
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
                callbacks=[SweepCallback(search, stop, view, held, pulse)],
                verbose=0,
            ),
        )
        with view:
            tuner.fit()
            view.refresh(force=True)
    except (TuneError, JournalError) as error:
        raise ValueError(
            f"the sweep was cut off: {str(error).strip().splitlines()[-1]}. Nothing that was reported is lost; once "
            f"the cause is fixed, continue with: vaegan resume {sweep.config.name}"
        ) from error
    finally:
        ray.shutdown()


def make_search(
    sweep: Sweep,
    journal: Journal,
    directory: Path,
    slots: int,
    stop: Callable[[], bool],
    has_state: Callable[[int], bool] | None = None,
) -> tuple[SweepSearcher, SweepScheduler]:
    """What suggests trials and what judges their reports, both continuing from the journal; `slots` run at a time.

    `has_state` says of a stopped trial whether it can go on; by default, whether its checkpoint is there.
    """
    directory = directory.resolve()
    rule = make_rule(sweep, journal, has_state or partial(has_checkpoint, directory))
    search = SweepSearcher(sweep, journal, directory, rule, max_concurrent=slots, stop_requested=stop)
    return search, SweepScheduler(sweep, journal, directory, rule, stop)


class SweepCallback(tune.Callback):  # type: ignore[misc]
    """Keeps Tune's own state small, frees the disk of ended trials, looks at the budget, refreshes the view."""

    def __init__(
        self,
        search: SweepSearcher,
        stop: StopFlag,
        view: View,
        held: HeldGpus | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self.sweep = search.sweep
        self.journal = search.journal
        self.directory = search.directory
        self.rule = search.rule
        self.stop = stop
        self.view = view
        self.held = held
        self.pulse = pulse
        self._with_models = {
            trial.number
            for trial in self.journal.trials(Outcome.COMPLETED)
            if (trial_directory(self.directory, trial.number) / Artifact.MODEL).is_file()
        }
        self._waiting: set[int] = set()
        self._discard_hopeless(trial.number for trial in self.journal.trials(Outcome.PRUNED))

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; ours derives everything from the journal."""
        return {}

    def on_trial_result(self, **info: Any) -> None:
        discard_payload(info["result"])

    def on_trial_complete(self, **info: Any) -> None:
        number = info["trial"].config["trial"]
        outcome, files = self.journal.outcome(number), trial_directory(self.directory, number)
        if outcome == Outcome.COMPLETED and not info["trial"].config["replicate"]:
            discard_checkpoint(files)
            self._keep_best_models(number)
        elif outcome == Outcome.PRUNED:
            self._discard_hopeless([number])
        elif outcome in FINAL_OUTCOMES:
            discard_trial(files)

    def _discard_hopeless(self, stopped: Iterable[int]) -> None:
        """Deletes the files of stopped trials that get no second chance any more."""
        stopped, waiting = self._waiting | set(stopped), self.rule.waiting()
        for number in stopped - waiting:
            if self.journal.outcome(number) == Outcome.PRUNED:
                discard_trial(trial_directory(self.directory, number))
        self._waiting = stopped & waiting

    def _keep_best_models(self, number: int) -> None:
        """Deletes the worst model when more trials have one than are kept."""
        config = self.sweep.config
        most = max(config.tracking.keep_models, config.confirm.top if config.confirm else 0)
        self._with_models.add(number)
        for worse in best_of(self.sweep, self.journal, self._with_models)[most:]:
            discard_trial(trial_directory(self.directory, worse))
            self._with_models.remove(worse)

    def on_step_end(self, **info: Any) -> None:  # noqa: ARG002
        self.stop.look()
        if self.held:
            self.held.look()
        self.view.refresh(self.pulse.look() if self.pulse else NOT_TOLD)
