"""What a server rejects is set aside and sent again later; any other failure is raised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from delivered import make_sweep_directory, open_journal
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE

from search.journal.journal import Journal
from search.tracking.sender import LONGEST_TAG, THE_SWEEP, Sender

REJECTED = MlflowException("no", error_code=INVALID_PARAMETER_VALUE)
DOWN = MlflowException("down", error_code=INTERNAL_ERROR)


@dataclass
class Server:
    """Stands for a client and its server: takes whatever holds none of the `bad` steps."""

    bad: set[int] = field(default_factory=set)
    error: Exception = REJECTED
    works: bool = True
    stage: str = "active"
    steps: list[int] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    calls: int = 0

    def log_batch(self, run_id: str, metrics: Sequence[Any] = (), tags: Sequence[Any] = ()) -> None:  # noqa: ARG002
        self.calls += 1
        if self.bad & {metric.step for metric in metrics}:
            raise self.error
        self.steps += [metric.step for metric in metrics]
        self.tags |= {tag.key: tag.value for tag in tags}

    def get_run(self, run_id: str) -> Any:  # noqa: ARG002
        if not self.works:
            raise DOWN
        return SimpleNamespace(info=SimpleNamespace(lifecycle_stage=self.stage))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = open_journal(make_sweep_directory(tmp_path, "sender"))
    journal.db.execute("UPDATE trials SET run_id = 'run-' || number")
    return journal


def points(sender: Sender) -> list[tuple[int, Any]]:
    return [(id, point) for id, trial, point in sender.outbox.points_after(0, 1000) if trial == 0]


def test_points_are_halved_until_only_the_rejected_ones_are_left_and_sent_again_on_request(journal: Journal) -> None:
    server = Server(bad={84})
    sender = Sender(server, journal, "parent")
    every = points(sender)
    sender.send_points(0, every)
    bad = [point for _, point in every if point.step == 84]
    assert len(server.steps) == len(every) - len(bad)
    assert server.calls < 50
    refused = sender.outbox.refused()
    assert {record.what for record in refused} == {f"{point.key} of trial 0 at step 84" for point in bad}
    sender.retry_refused()
    assert sender.outbox.refused() == refused
    server.bad = set()
    sender.retry_refused()
    assert sender.outbox.refused() == []
    assert len(server.steps) == len(every)


def test_a_deleted_run_is_not_asked_point_by_point(journal: Journal) -> None:
    server = Server(bad={84}, stage="deleted")
    sender = Sender(server, journal, "parent")
    sender.send_points(0, points(sender))
    assert server.calls == 1
    assert len(sender.outbox.refused()) == len(points(sender))


@pytest.mark.parametrize("server", [Server(bad={84}, error=DOWN), Server(bad={84}, works=False)])
def test_a_failing_server_is_no_rejection(journal: Journal, server: Server) -> None:
    sender = Sender(server, journal, "parent")
    with pytest.raises(MlflowException, match="down"):
        sender.send_points(0, points(sender))
    assert sender.outbox.refused() == []


def test_a_rejected_part_is_named_and_goes_with_the_next_delivery(journal: Journal) -> None:
    sender = Sender(Server(), journal, "parent")

    def reject() -> None:
        raise REJECTED

    sender.offer(1, "files", reject)
    sender.offer(THE_SWEEP, "description", reject)
    assert [record.what for record in sender.outbox.refused()] == [
        "the description of the sweep",
        "the files of trial 1",
    ]
    sender.sweep_files_sent = True
    for trial in sender.outbox.out_of_step():
        sender.outbox.set_synced(trial)
    sender.retry_refused()
    assert not sender.sweep_files_sent
    assert [trial.number for trial in sender.outbox.out_of_step()] == [1]
    assert sender.outbox.refused() == []


def test_a_run_is_asked_for_until_there_is_one_and_long_tags_are_cut(journal: Journal) -> None:
    server = Server()
    sender = Sender(server, journal, "parent")
    journal.db.execute("UPDATE trials SET run_id = NULL WHERE number = 1")
    assert (sender.run_id(0), sender.run_id(1)) == ("run-0", None)
    sender.outbox.set_run_id(1, "late")
    assert sender.run_id(1) == "late"
    sender.send_tags(journal.trial(1), {"reason": "x" * 6000})
    assert server.tags == {"reason": "x" * LONGEST_TAG}
