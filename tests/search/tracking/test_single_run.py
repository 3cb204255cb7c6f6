"""A single training's run: an outage of the server costs it nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from search.lease import lease
from search.local import train
from search.tracking.single_run import RunLog
from vaegan_core.evaluation import Evaluation

AWAY = MlflowException("no answer")
REFUSED = MlflowException("too long", error_code=1000)  # INVALID_PARAMETER_VALUE


class Server:
    """Fails the first `failing` calls with `error`."""

    def __init__(self, error: Exception, failing: int) -> None:
        self.error, self.failing = error, failing
        self.has: list[object] = []

    def take(self, part: object) -> Callable[[], None]:
        def send() -> None:
            if self.failing:
                self.failing -= 1
                raise self.error
            self.has.append(part)

        return send


S3_AWAY = RuntimeError("as the clients of object stores raise, of classes of their own")


@pytest.mark.parametrize("error", [AWAY, ConnectionError("refused"), TimeoutError(), S3_AWAY])
def test_what_a_server_does_not_take_is_sent_later_and_in_order(error: Exception) -> None:
    said: list[str] = []
    log, server = RunLog(said.append), Server(error, failing=3)
    for part in range(3):
        log.offer(server.take(part))
        assert not log.all_sent
    assert len(said) == 1
    log.offer(server.take(3))
    assert server.has == [0, 1, 2, 3]
    assert log.all_sent


def test_what_a_server_rejects_is_said_and_holds_up_nothing() -> None:
    said: list[str] = []
    log, server = RunLog(said.append), Server(REFUSED, failing=1)
    for part in range(3):
        log.offer(server.take(part))
    assert server.has == [1, 2]
    assert len(said) == 1
    assert "rejected" in said[0]
    assert not log.all_sent


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Callable[[Server, Path], list[str]]:
    """Trains four evaluations with a server, and returns what was said."""

    class Trainer:
        def __init__(self, *_: object) -> None: ...

        def run(self, report: Callable[[Evaluation], None], **_: object) -> None:
            for step in (1, 2, 3, 4):
                report(Evaluation(step, "running"))

    def run(server: Server, directory: Path) -> list[str]:
        said: list[str] = []
        for name, replaced in {
            "FrameSet": SimpleNamespace(open=lambda _: SimpleNamespace(fingerprint="f")),
            "ensure_features": lambda _: SimpleNamespace(fingerprint="n"),
            "resolve": lambda config: config,
            "describe_environment": lambda _: {},
            "Trainer": Trainer,
            "_claim": lambda *_: None,
            "open_client": lambda _: None,
            "open_training": lambda *_: "run",
            "log_evaluation": lambda _client, _run, evaluation: server.take(evaluation.step)(),
            "end_run": lambda *_: server.take("end")(),
        }.items():
            monkeypatch.setattr(train, name, replaced)
        config: Any = SimpleNamespace(frames="frames")
        train.train_single(config, directory, resume=False, progress=lambda _: None, say=said.append)
        return said

    return run


@pytest.mark.parametrize(("failing", "arrive"), [(2, 4), (99, 0)])
def test_a_training_goes_on_without_its_server(
    failing: int, arrive: int, trained: Callable[[Server, Path], list[str]], tmp_path: Path
) -> None:
    server = Server(AWAY, failing)
    said = trained(server, tmp_path)
    assert [part for part in server.has if part != "end"] == list(range(1, arrive + 1))
    assert any("step 4" in line for line in said)
    assert any("--resume" in line for line in said) == (arrive == 0)


def test_two_processes_do_not_train_in_one_directory(
    trained: Callable[[Server, Path], list[str]], tmp_path: Path
) -> None:
    server = Server(AWAY, 0)
    with lease(tmp_path), pytest.raises(ValueError, match="another process is running a training in"):
        trained(server, tmp_path)
    assert server.has == []
