"""The Ray trainable: an assignment in, reports out. It runs in a worker process that serves many trials."""

from __future__ import annotations

import faulthandler
import math
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from search.journal.records import GPU_SHARE, FileKind, SavedRecord
from search.names import Artifact
from search.paths import HANG_FILE
from search.provenance import describe_environment
from search.running.device_errors import cause_of, is_of_device
from search.running.heartbeat import beating
from search.running.messages import Assignment, Ended, Evaluated, Started, to_result
from search.running.system_metrics import SystemMetrics
from search.storage.trial_files import TrialFiles, digest_of, state_name
from vaegan_core.config.trial import TrialConfig, parse_trial
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import Evaluation
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.strict_yaml import parse_yaml
from vaegan_core.tensor_files import read_metadata
from vaegan_core.training.machine import decided
from vaegan_core.training.resolve import resolve
from vaegan_core.training.trainer import Trainer

PATIENCE = ("TUNE_FUNCTION_THREAD_TIMEOUT_S", "300")
"""Seconds that a worker may take to end one trial before the next begins in it; Tune's own 2 are too few for a machine
with more to do than it has cores."""


def run_trial(
    config: dict[str, Any], *, frame_set: FrameSet, features: FrameFeatures, threads: int, heart: Any = None
) -> None:
    """Trains the assigned trial, from its checkpoint where there is one; an exception is reported, never raised.

    After an error of a GPU the process ends: such an error stays, and would be that of every trial after this one.
    `config` is an Assignment, as Tune carries it; `frame_set` and `features` come from the node's object store;
    `threads` is this trial's share of the cores; `heart` the actor that is told how far it is.
    """
    os.environ.setdefault(*PATIENCE)
    assignment = Assignment.of(config)
    try:
        with HangWatch(Path(assignment.scratch) / HANG_FILE, assignment.seconds) as watch:
            files = TrialFiles(assignment.storage, assignment.prefix, waiting=watch.start)
            start = assignment.start
            with starting_state(files, assignment) as state:
                trial = _resolved(assignment, threads, facts_of(state))
                environment = {**describe_environment(trial), **_place(assignment)}
                tell(watch, Started(assignment.config, environment, start.step if start else 0))
                trainer = Trainer(trial, frame_set, features)
                lost = load_state(trainer, state, assignment)
            train(trainer, lost, files, assignment, watch, beating(heart, assignment.trial))
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


def facts_of(state: Path | None) -> dict[str, Any]:
    """What the machine decided for the state that a trial continues from; empty without one."""
    return decided(parse_trial(read_metadata(state)["config"], str(state))) if state else {}


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


class HangWatch:
    """Ends this process when `seconds` pass without a call of `start`; `path` then says where it hung.

    The watch is C code in Python itself, so that it also catches a process whose interpreter is blocked.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self.seconds = seconds

    def __enter__(self) -> HangWatch:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("w")
        self.start()
        return self

    def start(self) -> None:
        """Begins to count the seconds, or begins again."""
        faulthandler.dump_traceback_later(self.seconds, exit=True, file=self._file)

    def stop(self) -> None:
        """Lets any time pass until the next `start`."""
        faulthandler.cancel_dump_traceback_later()

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self._file.close()
        self.path.unlink(missing_ok=True)


def tell(watch: HangWatch, report: Started | Evaluated) -> None:
    """Reports to the driver and waits for its answer, for as long as it takes: that to a trial's last report comes when
    this worker gets its next trial, or ends."""
    watch.stop()
    tune.report(to_result(report))
    watch.start()


@contextmanager
def starting_state(files: TrialFiles, assignment: Assignment) -> Iterator[Path | None]:
    """A path to read the state from that the attempt begins with; None: it begins from the beginning."""
    start = assignment.start
    if start is None:
        yield None
        return
    with files.reading(start.key, start.sha256) as path:
        yield path


def load_state(trainer: Trainer, state: Path | None, assignment: Assignment) -> Iterable[Evaluation]:
    """Has the trainer go on from `state`; returns the evaluations with it that the journal may not have, and its last
    one. Another trial's state brings none."""
    start = assignment.start
    if state is None or start is None:
        return ()
    if start.trial != assignment.trial:
        trainer.load(state, of_another=True)
        return ()
    evaluations = trainer.load(state)
    return [each for each in evaluations if each.step >= assignment.step] or evaluations[-1:]


def train(
    trainer: Trainer,
    lost: Iterable[Evaluation],
    files: TrialFiles,
    assignment: Assignment,
    watch: HangWatch,
    beat: Callable[[int], None],
) -> None:
    """Reports evaluations that were `lost`, then trains; every evaluation's state is in the storage before its report.

    `watch` begins anew at every report; `beat` is called with the step at every curve point.
    """
    system = SystemMetrics(cuda=trainer.config.train.device == "cuda")

    def saved(evaluation: Evaluation, kind: FileKind, name: str, save: Callable[[Path], None]) -> SavedRecord:
        key = f"{assignment.folder}/{name}"
        with files.writing(key) as path:
            save(path)
            digest = digest_of(path)
        return SavedRecord(assignment.trial, assignment.attempt, evaluation.step, kind, key, digest)

    def evaluated(evaluation: Evaluation, *records: SavedRecord) -> None:
        if evaluation.outcome == "completed":
            records += (saved(evaluation, FileKind.MODEL, Artifact.MODEL, trainer.save_model),)
        evaluation = replace(evaluation, points=evaluation.points + system.points(evaluation.step))
        tell(watch, Evaluated(evaluation, records))

    def report(evaluation: Evaluation) -> None:
        if evaluation.outcome == "diverged":
            evaluated(evaluation)
            return
        save = partial(trainer.save, evaluation=evaluation)
        evaluated(evaluation, saved(evaluation, FileKind.STATE, state_name(evaluation.step), save))

    with system:
        for evaluation in lost:
            evaluated(evaluation)
        trainer.run(report, progress=beat)
