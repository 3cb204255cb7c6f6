"""The worker's side of a trial, in this process: nothing of a trial stays behind in a worker that serves the next."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trials import tiny

from search.running.messages import Assignment, Ended, Evaluated, Report, Started, from_result
from search.running.trial import run_trial
from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.training.trainer import Trainer


@pytest.mark.parametrize("crashes", [False, True], ids=["to its end", "crashed"])
def test_nothing_keeps_the_trainer_of_a_trial_alive(
    tmp_path: Path, frame_set: FrameSet, frame_features: FrameFeatures, monkeypatch: pytest.MonkeyPatch, crashes: bool
) -> None:
    """Without the garbage collector, as in tests/core/training/test_lifetime.py, and from the second trial on."""
    reports: list[Report | None] = []
    made: list[weakref.ref[Trainer]] = []

    def make(*arguments: Any) -> Trainer:
        trainer = Trainer(*arguments)
        made.append(weakref.ref(trainer))
        return trainer

    def report(result: dict[str, Any]) -> None:
        reports.append(from_result(result))
        if crashes and isinstance(reports[-1], Evaluated):
            raise OSError("the disk is full")

    monkeypatch.setattr("search.running.trial.Trainer", make)
    monkeypatch.setattr("ray.tune.report", report)
    monkeypatch.setattr("ray.get_gpu_ids", list)
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "n"))
    alive = []
    gc.disable()
    try:
        for number in range(2):
            assignment = Assignment(
                trial=number,
                attempt=1,
                alone=False,
                replicate=False,
                config=tiny(train__steps=6).to_yaml(),
                directory=str(tmp_path / str(number)),
                gpu=0,
                seconds=600,
            )
            run_trial(assignment.to_config(), frame_set=frame_set, features=frame_features, threads=1)
            alive = [made[-1]()]
    finally:
        gc.enable()
    evaluated = [each.evaluation for each in reports if isinstance(each, Evaluated)]
    first, second = ([p[:3] for p in each.points if not p.key.startswith(("speed/", "system/"))] for each in evaluated)
    assert first == second, "the same in a worker that has served another trial"
    assert [type(each) for each in reports] == [Started, Evaluated, *([Ended] if crashes else [])] * 2
    assert len(made) == 2
    assert alive == [None]
