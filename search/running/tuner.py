"""Ray's Tuner over everything that is left of a sweep."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune import TuneError
from ray.tune.execution import class_cache

from search.advice import resume_command
from search.config.sweep import Sweep
from search.journal.database import JournalError
from search.journal.journal import Journal
from search.running.heartbeat import Pulse
from search.running.held_gpus import HeldGpus
from search.running.hosts import Hosts
from search.running.keeping import Keeping
from search.running.messages import STARTED, discard_payload
from search.running.ready_nodes import needs_of
from search.running.resources import share_in_words
from search.running.scheduler import SweepScheduler
from search.running.searcher import SweepSearcher
from search.running.stop_flag import StopFlag
from search.running.sweep_frames import SweepFrames, in_memory
from search.running.trial import run_trial
from search.standings.progress import NOT_TOLD
from search.storage.place import Place
from search.storage.stored_sweep import Held
from search.strategy.stopping import make_rule
from search.terminal import counted

SECRETS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"}
"""Tune would put them into the environment of every trial, which nodes log. Nodes reach the storage by themselves."""
NOT_REUSED = "Trainable runner reuse requires reset_config"
"""In what Tune logs as an error where a trial is given to another worker."""


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
    held: Held,
    journal: Journal,
    frames: SweepFrames,
    stop: StopFlag,
    view: View,
) -> None:
    """Runs one Tuner over everything unfinished and everything still to be drawn; shuts Ray down."""
    propagate_no_secrets()
    logging.getLogger("ray.tune.execution.tune_controller").addFilter(lambda said: NOT_REUSED not in said.getMessage())
    try:
        hosts = Hosts(sweep, held.left_out, needs_of(held.place, sweep, frames), view.say)
        view.say(f"Up to {counted(hosts.slots, 'trial')} at a time, each with {share_in_words(sweep)}.")

        resources = sweep.config.resources
        search, scheduler = make_search(sweep, journal, held.place, hosts.slots, stop)
        bad_gpus = HeldGpus(journal, float(resources.gpu), hosts, stop, view.say)
        pulse = Pulse(held.place.directory)
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
                storage_path=str(held.place.directory),
                callbacks=[SweepCallback(Keeping(search, held.files), stop, view, hosts, bad_gpus, pulse)],
                verbose=0,
            ),
        )
        with view:
            tuner.fit()
            view.refresh(force=True)
    except (TuneError, JournalError) as error:
        raise ValueError(
            f"the sweep was cut off: {str(error).strip().splitlines()[-1]}. Nothing that was reported is lost; once "
            f"the cause is fixed, continue with: {resume_command(sweep.config.name)}"
        ) from error
    finally:
        ray.shutdown()


def propagate_no_secrets() -> None:
    """Has Tune keep SECRETS out of what trials are given."""
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(SECRETS)


def make_search(
    sweep: Sweep, journal: Journal, place: Place, slots: int, stop: Callable[[], bool]
) -> tuple[SweepSearcher, SweepScheduler]:
    """What suggests trials and what judges their reports, both continuing from the journal; `slots` run at a time."""
    rule = make_rule(sweep, journal, lambda number: journal.state(number) is not None)
    search = SweepSearcher(sweep, journal, place, rule, max_concurrent=slots, stop_requested=stop)
    return search, SweepScheduler(sweep, journal, rule, stop)


class SweepCallback(tune.Callback):  # type: ignore[misc]
    """Keeps Tune's own state small, frees the storage, looks at the budget, refreshes the view."""

    def __init__(
        self,
        keeping: Keeping,
        stop: StopFlag,
        view: View,
        hosts: Hosts | None = None,
        held: HeldGpus | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self.keeping = keeping
        self.stop = stop
        self.view = view
        self.hosts = hosts
        self.held = held
        self.pulse = pulse

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; ours derives everything from the journal."""
        return {}

    def on_trial_result(self, **info: Any) -> None:
        if self.hosts and STARTED in info["result"]:
            self.hosts.began(self.keeping.journal, info["trial"].config["trial"])
        discard_payload(info["result"])
        self.keeping.after_report()

    def on_trial_complete(self, **info: Any) -> None:
        self.keeping.after_trial(info["trial"].config["trial"])

    def on_step_begin(self, **info: Any) -> None:
        self.keeping.search.tune_trials = info["trials"]

    def on_step_end(self, **info: Any) -> None:  # noqa: ARG002
        self.stop.look()
        if self.held:
            self.held.look()
        if self.hosts:
            self.hosts.look(self.keeping.search)
        self.view.refresh(self.pulse.look() if self.pulse else NOT_TOLD)
