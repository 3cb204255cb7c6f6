"""Runs outside a sweep's delivery: those of `vaegan train` and `vaegan rerun`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Param

from search.names import Artifact, Kind, Tag
from search.provenance import describe_environment, installed_packages, source_diff
from search.tracking.client import ensure_experiment
from search.tracking.errors import explain, is_refusal
from search.tracking.runs import STATUS, NewRun, create_run, mark_running, text_of
from vaegan_core.config.trial import TrialConfig
from vaegan_core.tensor_files import write_atomically

EXPERIMENT = "vaegan-train"
RUN_ID_FILE = "run_id.txt"
EMPTY: Mapping[str, Any] = MappingProxyType({})
LONGEST_NAME = 250
"""Characters of a run's name."""
KEPT_BY_RERUNS = (Tag.SWEEP_ID, Tag.SWEEP_NAME, Tag.TRIAL, Tag.FRAMES, Tag.FEATURES, Tag.ADOPTED)
"""Tags that a rerun takes over from its trial."""


def open_training(
    client: MlflowClient,
    directory: Path,
    config: TrialConfig,
    environment: Mapping[str, str],
    frames: str,
    features: str = "",
) -> str:
    """Id of the run of the training in `directory`, made on first use; `config` is as a person wrote it, `frames` and
    `features` are the fingerprints of the frame set and of its feature network."""
    note = directory / RUN_ID_FILE
    if note.exists():
        run_id = note.read_text()
        mark_running(client, run_id)
        return run_id
    new = NewRun(
        kind=Kind.TRIAL,
        name=directory.name,
        environment=environment,
        more={Tag.FRAMES: frames, Tag.FEATURES: features, Tag.DIRECTORY: str(directory.resolve())},
    )
    run_id = create_run(client, ensure_experiment(client, EXPERIMENT), new)
    client.log_text(run_id, config.to_yaml(), Artifact.CONFIG)
    log_source(client, run_id)
    write_atomically(note, run_id.encode())
    return run_id


def open_rerun(
    client: MlflowClient, trial_run_id: str, config: TrialConfig, variant: str = "", params: Mapping[str, Any] = EMPTY
) -> str:
    """Id of a new run below that of the trial that it trains again, with the trial's parameters; `variant` says what is
    another, and `params` are those that it sets."""
    trial = client.get_run(trial_run_id)
    kept: dict[str, str] = {tag: trial.data.tags[tag] for tag in KEPT_BY_RERUNS if tag in trial.data.tags}
    new = NewRun(
        kind=Kind.RERUN,
        name=f"{trial.info.run_name} · {variant or 'rerun'}"[:LONGEST_NAME],
        environment=describe_environment(config),
        parent=trial_run_id,
        more=kept | ({Tag.VARIANT: variant} if variant else {}),
    )
    run_id = create_run(client, trial.info.experiment_id, new)
    values = {**trial.data.params, **{key: text_of(value) for key, value in params.items()}}
    client.log_batch(run_id, params=[Param(key, value) for key, value in values.items()])
    client.log_text(run_id, config.to_yaml(), Artifact.CONFIG)
    log_source(client, run_id)
    return run_id


def log_source(client: MlflowClient, run_id: str) -> None:
    """Packages, and how the code differs from its commit, of a run that is below no sweep that has them."""
    for name, text in ((Artifact.ENVIRONMENT, installed_packages()), (Artifact.GIT_DIFF, source_diff())):
        if text:
            client.log_text(run_id, text, name)


class RunLog:
    """What goes to a run while its training goes on: in order, each part as soon as the server takes it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: set[str] = set()
        self._waiting: deque[Callable[[], object]] = deque()
        self._rejected = False

    def offer(self, send: Callable[[], object]) -> None:
        """Sends a part by calling `send`, or keeps it for the next time; sent twice, it must change nothing."""
        self._waiting.append(send)
        while self._waiting:
            try:
                self._waiting[0]()
            except Exception as error:  # also what clients of object stores raise
                if not is_refusal(error):
                    self._say_once("MLflow cannot be written to; training goes on, and this is sent later", error)
                    return
                self._rejected = True
                self._say_once("MLflow rejected a part of this training", error)
            self._waiting.popleft()

    @property
    def all_sent(self) -> bool:
        return not self._waiting and not self._rejected

    def _say_once(self, what: str, error: Exception) -> None:
        if what not in self._said:
            self._said.add(what)
            self._say(f"{what}. {explain(error)}")


def end_run(client: MlflowClient, run_id: str, outcome: str) -> None:
    """Sets the run's outcome and status."""
    client.set_tag(run_id, Tag.OUTCOME, outcome)
    client.set_terminated(run_id, STATUS[outcome])
