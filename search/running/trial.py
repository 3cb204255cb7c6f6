"""The Ray trainable: an assignment in, reports out. It runs in a worker process that serves many trials."""

from __future__ import annotations

import faulthandler
import math
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from search.journal.records import GPU_SHARE
from search.names import Artifact
from search.paths import ADOPTED_FILE, CHECKPOINT_FILE, HANG_FILE
from search.provenance import describe_environment
from search.running.device_errors import cause_of, is_of_device
from search.running.heartbeat import beating
from search.running.messages import Assignment, Ended, Evaluated, Started, to_result
from search.running.system_metrics import SystemMetrics
from search.running.trial_files import adopt_state, saved_facts, saved_step, set_aside_foreign
from vaegan_core.config import TrialConfig, parse_trial
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import Evaluation
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.strict_yaml import parse_yaml
from vaegan_core.training.resolve import resolve
from vaegan_core.training.trainer import Trainer


def run_trial(
    config: dict[str, Any], *, frame_set: FrameSet, features: FrameFeatures, threads: int, heart: Any = None
) -> None:
    """Trains the assigned trial, from its checkpoint where there is one; an exception is reported, never raised.

    After an error of a GPU the process ends: such an error stays, and would be that of every trial after this one.
    `config` is an Assignment, as Tune carries it; `frame_set` and `features` come from the node's object store;
    `threads` is this trial's share of the cores; `heart` the actor that is told how far it is.
    """
    assignment = Assignment.of(config)
    directory = Path(assignment.directory)
    try:
        with ended_when_hung(directory / HANG_FILE, assignment.seconds) as alive:
            trial = _resolved(assignment, threads, saved_facts(directory))
            if assignment.attempt == 1:
                set_aside_foreign(directory / CHECKPOINT_FILE, trial)
            environment = {**describe_environment(trial), **_place(assignment)}
            tune.report(to_result(Started(assignment.config, environment, saved_step(directory))))
            if (directory / ADOPTED_FILE).exists():
                adopt_state(directory / ADOPTED_FILE, directory / CHECKPOINT_FILE, trial)
            train(trial, frame_set, features, assignment, alive, beating(heart, assignment.trial))
    except Exception as error:
        tune.report(to_result(Ended(cause_of(error), traceback.format_exc())))
        if is_of_device(error):
            end_process()
    finally:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()


def end_process() -> None:
    """Ends this worker at once, without a call to its GPU; Ray starts another one."""
    os._exit(1)


def _resolved(assignment: Assignment, threads: int, before: dict[str, Any]) -> TrialConfig:
    """The assigned configuration for this machine; with what was decided `before`, if it stays on the same device."""
    config = parse_trial(parse_yaml(assignment.config), "config.yaml")
    if not assignment.gpu and config.train.device == "auto":  # Ray leaves GPUs visible that it did not give
        config = config.model_copy(update={"train": config.train.model_copy(update={"device": "cpu"})})
    resolved = resolve(config, threads=threads)
    stays = before.get("device") == resolved.train.device
    return resolve(config, threads=threads, before=before) if stays else resolved


def _place(assignment: Assignment) -> dict[str, str]:
    """Ray's ids of the node and of its GPUs, and how much of a GPU this attempt has."""
    share = float(assignment.gpu)
    share = math.ceil(share) if assignment.alone else share
    gpus = ",".join(str(gpu) for gpu in ray.get_gpu_ids())
    return {"node": ray.get_runtime_context().get_node_id(), "gpus": gpus, GPU_SHARE: f"{share:g}"}


@contextmanager
def ended_when_hung(path: Path, seconds: float) -> Iterator[Callable[[], None]]:
    """Ends this process when `seconds` pass without a call of the yielded function; `path` then says where it hung.

    The watch is C code in Python itself, so that it also catches a process whose interpreter is blocked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:

        def alive() -> None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=file)

        alive()
        try:
            yield alive
        finally:
            faulthandler.cancel_dump_traceback_later()
            path.unlink(missing_ok=True)


def train(
    config: TrialConfig,
    frame_set: FrameSet,
    features: FrameFeatures,
    assignment: Assignment,
    alive: Callable[[], None],
    beat: Callable[[int], None],
) -> None:
    """Trains with files in the trial's directory; calls `alive` at every evaluation and `beat` with the step at every
    curve point; evaluations of a checkpoint that the journal does not have are reported again."""
    directory = Path(assignment.directory)
    trainer = Trainer(config, frame_set, features)
    system = SystemMetrics(cuda=config.train.device == "cuda")

    def report(evaluation: Evaluation) -> None:
        if evaluation.outcome == "completed":
            trainer.save_model(directory / Artifact.MODEL)
        evaluation = replace(evaluation, points=evaluation.points + system.points(evaluation.step))
        tune.report(to_result(Evaluated(evaluation)))
        alive()

    with system:
        trainer.run(report, checkpoint=directory / CHECKPOINT_FILE, progress=beat, since=assignment.step)
