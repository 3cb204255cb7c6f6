"""Every evaluation of every trial of a sweep, as one artifact of its run: a table that executes nothing."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import pyarrow as pa
from mlflow import MlflowClient
from pyarrow import parquet

from search.names import Artifact
from search.tracking.reader import SweepRun, read_artifact, read_curve
from vaegan_core.evaluation import DECODER_GAP, KL, LAYOUT_FD, METRICS, PIXEL_MSE, PRIOR_GAP, SAMPLES_FD

TRIALS_READ = 40
"""Trials whose curves are read one by one, best first, where a sweep has no table: it is of version 0.3 or before."""
CURVES_READ = (PIXEL_MSE, LAYOUT_FD, PRIOR_GAP, DECODER_GAP, SAMPLES_FD, KL)
"""What is read of them, besides the objectives."""
TRIES = 3
"""Reads of a table that is being replaced at that moment."""


@dataclass(frozen=True)
class Row:
    """One evaluation."""

    trial: int
    step: int
    seconds: float | None
    """Since the evaluation before, or since its attempt began; None where neither is known."""
    host: str
    replicate_of: int | None
    """The trial that this one repeats with another seed; None for a trial that is none."""
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of a sweep's trials and replicates, by trial and then by step."""

    trial: np.ndarray
    """Number of the trial [n]."""
    step: np.ndarray
    seconds: np.ndarray
    """[n]; NaN where unknown."""
    host: np.ndarray
    """[n], text; "" where unknown."""
    replicate_of: np.ndarray
    """[n]; -1 for a trial that is no replicate."""
    metrics: Mapping[str, np.ndarray]
    """[n] by key; NaN where an evaluation does not have it."""
    complete: bool = True
    """False where only some curves of the best trials could be read."""

    def __len__(self) -> int:
        return len(self.trial)

    @property
    def numbers(self) -> list[int]:
        """Numbers of the trials that have been evaluated, without replicates, in order."""
        return [number for number, rows in self._rows.items() if self.replicate_of[rows.start] < 0]

    def replicates(self, number: int) -> list[int]:
        """Numbers of the trial's replicates that have been evaluated."""
        return [other for other, rows in self._rows.items() if self.replicate_of[rows.start] == number]

    def curve(self, number: int, key: str) -> list[tuple[int, float]]:
        """(step, value) of one metric of a trial, in order of step; empty where it has none."""
        rows, values = self.rows(number), self.metrics.get(key)
        if values is None:
            return []
        pairs = zip(self.step[rows].tolist(), values[rows].tolist(), strict=True)
        return [(step, value) for step, value in pairs if value == value]

    def rows(self, number: int) -> slice:
        """Where a trial's evaluations are in the arrays."""
        return self._rows.get(number, slice(0, 0))

    @cached_property
    def _rows(self) -> dict[int, slice]:
        numbers, starts = np.unique(self.trial, return_index=True)
        edges = [*starts.tolist(), len(self.trial)]
        return {number: slice(*edge) for number, edge in zip(numbers.tolist(), pairwise(edges), strict=True)}


def collect(rows: Iterable[Row], *, complete: bool = True) -> Evaluations:
    """Rows, in any order, as arrays."""
    ordered = sorted(rows, key=lambda row: (row.trial, row.step))
    keys = sorted({key for row in ordered for key in row.metrics})
    return Evaluations(
        trial=np.array([row.trial for row in ordered], np.int32),
        step=np.array([row.step for row in ordered], np.int64),
        seconds=np.array([np.nan if row.seconds is None else row.seconds for row in ordered], float),
        host=np.array([row.host for row in ordered], object),
        replicate_of=np.array([-1 if row.replicate_of is None else row.replicate_of for row in ordered], np.int32),
        metrics={key: np.array([row.metrics.get(key, np.nan) for row in ordered], float) for key in keys},
        complete=complete,
    )


# --- The artifact -----------------------------------------------------------------------------------------------------

COLUMNS = ("trial", "step", "seconds", "host", "replicate_of")
"""Columns that are no metric."""


def to_parquet(evaluations: Evaluations) -> bytes:
    """The table as a Parquet file: a column for each of COLUMNS and for each metric."""
    columns = {name: pa.array(getattr(evaluations, name)) for name in COLUMNS if name != "host"}
    columns["host"] = pa.array(evaluations.host.tolist(), pa.string()).dictionary_encode()
    columns |= {key: pa.array(values) for key, values in evaluations.metrics.items()}
    floats = ["seconds", *evaluations.metrics]
    file = io.BytesIO()
    parquet.write_table(
        pa.table(columns),
        file,
        compression="zstd",
        use_dictionary=["trial", "step", "host", "replicate_of"],
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
    )
    return file.getvalue()


def from_parquet(data: bytes) -> Evaluations:
    """The table of `to_parquet`. Raises ValueError for anything else."""
    try:
        table = parquet.read_table(io.BytesIO(data))
        columns = {name: table[name].to_numpy() for name in table.column_names}
        return Evaluations(
            **{name: columns.pop(name) for name in COLUMNS},
            metrics={key: values.astype(float) for key, values in columns.items() if key in METRICS},
        )
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(f"{Artifact.EVALUATIONS} is damaged: {error}") from None


def read_evaluations(client: MlflowClient, sweep: SweepRun) -> Evaluations:
    """Every evaluation of a sweep, from one artifact; for sweeps of version 0.3 and before, some curves of the best
    TRIALS_READ. Raises ValueError where the artifact is damaged."""
    listed = {item.path for item in client.list_artifacts(sweep.run_id)}
    if Artifact.EVALUATIONS not in listed:
        return _read_one_by_one(client, sweep)
    for _ in range(TRIES - 1):
        try:
            return from_parquet(read_artifact(client, sweep.run_id, Artifact.EVALUATIONS))
        except ValueError:  # replaced while it was read
            continue
    return from_parquet(read_artifact(client, sweep.run_id, Artifact.EVALUATIONS))


def _read_one_by_one(client: MlflowClient, sweep: SweepRun) -> Evaluations:
    ranked = sweep.ranked
    completed = {trial.number for trial in ranked}
    trials = [*ranked, *(trial for trial in sweep.trials if trial.number not in completed and trial.final)]
    rows: list[Row] = []
    for trial in trials[:TRIALS_READ]:
        by_step: dict[int, dict[str, float]] = {}
        for key in _keys(sweep.objectives, trial.metrics):
            for point in read_curve(client, trial.run_id, key):
                by_step.setdefault(point.step, {})[key] = point.value
        host = trial.tags.get("host", "")
        rows += [Row(trial.number, step, None, host, None, metrics) for step, metrics in by_step.items()]
    return collect(rows, complete=False)


def _keys(objectives: Sequence[str], there: Mapping[str, float]) -> list[str]:
    return [key for key in dict.fromkeys([*objectives, *CURVES_READ]) if key in there]
