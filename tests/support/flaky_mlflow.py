"""MLflow in memory, for simulated sweeps: what the delivering process calls of it, on a server that fails by a seed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_DOES_NOT_EXIST,
    RESOURCE_EXHAUSTED,
    TEMPORARILY_UNAVAILABLE,
)

from search.tracking.writer import MlflowWriter

Answer = TypeVar("Answer")
CLAUSE = re.compile(r"tags\.`([^`]+)` = '([^']*)'")
LASTING = (
    ConnectionError("connection refused"),
    TimeoutError("no answer"),
    MlflowException("later", error_code=TEMPORARILY_UNAVAILABLE),
    MlflowException("too many requests", error_code=RESOURCE_EXHAUSTED),
)
"""What a server that is away, slow or busy answers; before it has done what it was asked, or after."""
REJECTION = MlflowException("not this", error_code=INVALID_PARAMETER_VALUE)


@dataclass
class StoredRun:
    """A run, as the server has it."""

    run_id: str
    name: str
    start_time: int
    tags: dict[str, str]
    status: str = "RUNNING"
    lifecycle_stage: str = "active"
    params: dict[str, str] = field(default_factory=dict)
    metrics: set[tuple[str, int, float, int]] = field(default_factory=set)
    """(key, step, value, time)."""
    files: set[str] = field(default_factory=set)

    @property
    def entity(self) -> SimpleNamespace:
        info = SimpleNamespace(
            run_id=self.run_id,
            experiment_id="0",
            start_time=self.start_time,
            lifecycle_stage=self.lifecycle_stage,
            status=self.status,
        )
        return SimpleNamespace(info=info, data=SimpleNamespace(tags=self.tags, params=self.params))


class Page(list[Any]):
    token = None


@dataclass
class FlakyMlflow:
    """The server, and its client. `rate` is the share of calls that fail."""

    random: Random
    rate: float = 0.0
    runs: dict[str, StoredRun] = field(default_factory=dict)
    tracking_uri: str = "memory"
    late: Callable[[], Any] | None = None
    """What the server still does though its client has given up: at the end of the next call."""

    # --- What the product calls ---------------------------------------------------------------------------------------

    def create_run(self, experiment_id: str, start_time: int, tags: dict[str, str], run_name: str) -> Any:  # noqa: ARG002
        def create() -> Any:
            run = StoredRun(f"run-{len(self.runs)}", run_name, start_time, dict(tags))
            self.runs[run.run_id] = run
            return run.entity

        return self._answer(create)

    def search_runs(self, experiments: Sequence[str], query: str, *more: Any, **paging: Any) -> Page:  # noqa: ARG002
        wanted = dict(CLAUSE.findall(query))
        return self._answer(
            lambda: Page(run.entity for run in self.active() if all(run.tags.get(k) == v for k, v in wanted.items()))
        )

    def get_run(self, run_id: str) -> Any:
        return self._answer(lambda: self._stored(run_id).entity)

    def log_batch(
        self, run_id: str, metrics: Sequence[Metric] = (), params: Sequence[Param] = (), tags: Sequence[RunTag] = ()
    ) -> None:
        def log() -> None:
            run = self._writable(run_id)
            for param in params:
                if run.params.setdefault(param.key, param.value) != param.value:
                    raise MlflowException(f"{param.key} has a value", error_code=INVALID_PARAMETER_VALUE)
            run.metrics |= {(metric.key, metric.step, metric.value, metric.timestamp) for metric in metrics}
            run.tags |= {tag.key: tag.value for tag in tags}

        self._answer(log, rejects=True)

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self._answer(lambda: self._writable(run_id).tags.__setitem__(key, value), rejects=True)

    def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        """What is kept of an experiment is for people's pages only."""

    def log_text(self, run_id: str, text: str, file: str) -> None:  # noqa: ARG002
        self._answer(lambda: self._writable(run_id).files.add(file), rejects=True)

    def log_artifact(self, run_id: str, path: str, folder: str = "") -> None:
        self._answer(lambda: self._writable(run_id).files.add(f"{folder}/{Path(path).name}"), rejects=True)

    def log_png(self, _client: Any, run_id: str, png: bytes, key: str, step: int, time: int) -> None:  # noqa: ARG002
        """Stands in for the sender's function of that name: pictures of simulated trainings are none."""
        self.log_artifact(run_id, f"{key}+{step}", "images")

    def update_run(self, run_id: str, status: str) -> None:
        self._answer(lambda: setattr(self._writable(run_id), "status", status), rejects=True)

    def set_terminated(self, run_id: str, status: str, end_time: int | None = None) -> None:  # noqa: ARG002
        self._answer(lambda: setattr(self._writable(run_id), "status", status), rejects=True)

    def delete_run(self, run_id: str) -> None:
        self._answer(lambda: setattr(self._stored(run_id), "lifecycle_stage", "deleted"))

    # --- How it answers -----------------------------------------------------------------------------------------------

    def active(self) -> Iterator[StoredRun]:
        return (run for run in self.runs.values() if run.lifecycle_stage == "active")

    def _answer(self, act: Callable[[], Answer], *, rejects: bool = False) -> Answer:
        late, self.late = self.late, None
        try:
            if self.random.random() >= self.rate:
                return act()
            match self.random.choice(("before", "after", "later")):
                case "before":
                    raise self.random.choice((*LASTING, REJECTION) if rejects else LASTING)
                case "after":
                    act()
                case "later" if not rejects:
                    self.late = act
            raise self.random.choice(LASTING)
        finally:
            if late:
                late()

    def _stored(self, run_id: str) -> StoredRun:
        if run_id not in self.runs:
            raise MlflowException(f"no run {run_id}", error_code=RESOURCE_DOES_NOT_EXIST)
        return self.runs[run_id]

    def _writable(self, run_id: str) -> StoredRun:
        run = self._stored(run_id)
        if run.lifecycle_stage != "active":
            raise MlflowException(f"{run_id} is deleted", error_code=INVALID_PARAMETER_VALUE)
        return run


@contextmanager
def writing_to(server: FlakyMlflow) -> Iterator[type[MlflowWriter]]:
    """Has a delivering process write to `server`; what it would ask the machine for is made up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("search.tracking.writer.open_client", lambda _: server)
        patch.setattr("search.tracking.writer.ensure_experiment", lambda *_: "0")
        patch.setattr("search.tracking.writer.installed_packages", lambda: "packages")
        patch.setattr("search.tracking.writer.source_diff", lambda: "")
        patch.setattr("search.tracking.runs.source_tags", dict)
        patch.setattr("search.tracking.sender.log_png", server.log_png)
        yield MlflowWriter
