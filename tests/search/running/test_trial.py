"""The worker's side of a trial, in this process: nothing of a trial stays behind in a worker that serves the next."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.tune.execution import class_cache
from trials import tiny

from search.running import tuner
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
                apart=False,
                config=tiny(train__steps=6).to_yaml(),
                storage=str(tmp_path),
                prefix="",
                folder=f"trials/{number:05d}/attempt-1",
                scratch=str(tmp_path / str(number)),
                state=None,
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


WAITING = """
import sys, time
from pathlib import Path
from search.running import trial
from search.running.messages import Started

trial.tune.report = lambda _: time.sleep(3)  # as after a trial's last report, or with a driver that is suspended
with trial.HangWatch(Path(sys.argv[1]), 1.0) as watch:
    trial.tell(watch, Started("", {}, 0))
    print("went on", flush=True)
    time.sleep(60)
"""


def test_a_worker_that_waits_for_its_driver_does_not_hang(tmp_path: Path) -> None:
    """With the watch on, idle workers died, and each took along the trial that began in it."""
    path = tmp_path / "hang.txt"
    done = subprocess.run(
        [sys.executable, "-c", WAITING, path], env=os.environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "went on\n"), done.stderr
    assert "line 11 in <module>" in path.read_text(), "once it works again it is watched"


def test_tune_passes_no_keys_of_a_bucket_on_to_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, str]] = []
    monkeypatch.setattr(ray, "remote", lambda runtime_env: given.append(runtime_env["env_vars"]) or (lambda _: None))
    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", class_cache.ENV_VARS_TO_PROPAGATE | tuner.SECRETS)
    for name in tuner.SECRETS:
        monkeypatch.setenv(name, "hunter2")
    class_cache._ActorClassCache().get(object)
    assert "hunter2" in given[0].values(), "or this says nothing"
    tuner.propagate_no_secrets()
    class_cache._ActorClassCache().get(object)
    assert "hunter2" not in given[1].values()
