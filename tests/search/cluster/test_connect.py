"""Ray that does not start is one sentence, whatever it raises; what a node that is taken back means is not Ray's."""

from __future__ import annotations

import platform
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import ray
from ray._private.utils import check_version_info
from ray.core.generated.common_pb2 import ActorDiedErrorContext, NodeDeathInfo
from ray.exceptions import ActorDiedError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from tuning import tuning

from search.cluster import connect

PATH = "AF_UNIX path length cannot exceed 107 bytes: /tmp/x/ray/session/sockets/plasma_store"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Exception("The current node timed out during startup. This\nmay be"), r"timed out during startup.*try again$"),
        (OSError(f"validate_socket_filename failed: {PATH}"), "set TMPDIR to a shorter one"),
        (ConnectionError("nobody listens"), "cannot be started on this machine: nobody listens$"),
        (TimeoutError(), "TimeoutError$"),
    ],
)
def test_ray_that_does_not_start_is_one_sentence(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ValueError, match=said) as raised:
        connect.connect(None)
    assert "\n" not in str(raised.value)


def test_other_versions_on_the_cluster_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        check_version_info({"ray_version": "2.59.0", "python_version": "3.11.2"}, "node 10.0.0.2")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ValueError, match="Ray at auto cannot be reached") as raised:
        connect.connect("auto")
    ours = f"Ray {ray.__version__} and Python {platform.python_version()}"
    assert f"it runs Ray 2.59.0 and Python 3.11.2, but this process {ours}; install the same" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_trial_whose_node_is_taken_back_goes_on_as_another_attempt_whatever_a_user_has_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in connect.RAY_ENVIRONMENT | connect.ALWAYS:
        monkeypatch.setenv(key, "0")
    monkeypatch.setattr(ray, "init", lambda **_: None)
    connect.connect(None)
    monkeypatch.setattr("search.running.failures.dead_nodes", lambda: frozenset({"spot"}))
    t = tuning(tmp_path, retries=0)
    t.start()
    t.begin(0, "spot")
    tune = MagicMock(spec=TuneController)  # Tune's own loop, around what it does about a failure
    tune._cached_trial_decisions = {}
    tune._callbacks, tune._scheduler_alg, tune._search_alg = MagicMock(), MagicMock(), t.search
    tune._iteration, tune._trials = 0, []
    tune._try_recover = lambda trial, exc: TuneController._try_recover(tune, trial, exc)
    trial = Trial("sweep", trial_id="tune-1", stub=True)
    trial.status, trial.storage = Trial.RUNNING, SimpleNamespace(trial_driver_staging_path="")
    TuneController._process_trial_failure(tune, trial, taken_back())
    tune._requeue_trial.assert_not_called()
    assert [attempt.cause for attempt in t.journal.attempts(0)] == ["node lost"]
    again = t.suggest()
    assert (again["trial"], again["attempt"], again["folder"]) == (0, 2, "trials/00000/attempt-2")
    assert t.journal.failures(0) == []


def taken_back() -> ActorDiedError:
    """What Ray raises for a trial's actor on a node that its provider takes back."""
    why = ActorDiedErrorContext(actor_id=b"\1" * 16)
    why.node_death_info.reason = NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED
    error = ActorDiedError(why)
    assert error.preempted
    return error
