"""Journal to MLflow: the only module that writes to MLflow.

One background thread reads the journal with its own connection and brings MLflow up to date in blocks. It can stop at
any moment and start again: what it has delivered is noted in the journal, and a block delivered twice changes nothing,
because a point keeps its key, value, step and time. A server that is down delays the delivery and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
import os
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from PIL import Image

from search import names
from search.config import Sweep, tracking_uri
from search.journal import FINAL_OUTCOMES, Journal, TrialRecord
from search.standings import Confirmation
from vaegan_core.evaluation import PIXEL_MSE, RECON_FD, SAMPLES_FD, SAMPLES_KID, SAMPLES_SWD, SSIM, Evaluation

BETTER: dict[str, Any] = {PIXEL_MSE: min, SSIM: max, RECON_FD: min, SAMPLES_FD: min, SAMPLES_KID: min, SAMPLES_SWD: min}
"""Validation metrics that have a best value, and how to find it."""
POINTS_PER_BLOCK = 1000
IMAGES_PER_BLOCK = 32
IDLE_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
LONGEST_TAG = 5000
STATUS = {
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "diverged": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}

logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)


def open_client(uri: str) -> MlflowClient:
    """A client on `uri`; a SQLite file's directory is made when missing, so that its first use creates the store."""
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return MlflowClient(uri)


def open_existing(uri: str) -> MlflowClient:
    """A client to read from. Raises ValueError where no sweep or training has written anything yet."""
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise ValueError(f"there are no runs at {uri}; go where the sweep ran, or set MLFLOW_TRACKING_URI")
    return open_client(uri)


def check_storage(directory: Path) -> None:
    """Raises ValueError when no file can be made below `directory`."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.is_dir())
    try:
        with TemporaryDirectory(dir=existing, prefix=".vaegan-check-") as scratch:
            (Path(scratch) / "file").write_bytes(b"x")
    except OSError as error:
        raise ValueError(f"sweeps go to {directory}, but nothing can be written there: {error.strerror}") from None


def check_tracking(uri: str) -> None:
    """Raises ValueError when MLflow at `uri` cannot be reached, or its SQLite file not be written."""
    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///"))
        if path.exists() and not os.access(path, os.W_OK):
            raise ValueError(f"tracking goes to {path}, but that file cannot be written")
        check_storage(path.absolute().parent)
        return
    try:
        open_client(uri).search_experiments(max_results=1)
    except MlflowException as error:
        first = (error.message or "").splitlines()[0]
        raise ValueError(f"MLflow at {uri} does not answer (tracking.uri, MLFLOW_TRACKING_URI): {first}") from None


def ensure_experiment(client: MlflowClient, uri: str, name: str) -> str:
    """Id of the experiment, made on first use. On SQLite its artifacts lie beside the database."""
    experiment: Experiment | None = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    location = None
    if uri.startswith("sqlite:///"):
        location = (Path(uri.removeprefix("sqlite:///")).resolve().parent / "artifacts" / name).as_uri()
    kind = {"mlflow.experimentKind": "custom_model_development"}  # the web pages then open on runs, not on chats
    return str(client.create_experiment(name, artifact_location=location, tags=kind))


class Tracker:
    """Keeps MLflow in step with one sweep's journal until it is closed."""

    def __init__(self, sweep: Sweep, journal_path: Path, say: Callable[[str], None]) -> None:
        self.sweep = sweep
        self.uri = tracking_uri(sweep.config.tracking)
        self._journal_path = journal_path
        self._say = say
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-writer", daemon=True)
        self._problem = ""

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout: float) -> bool:
        """Delivers what is left, for at most `timeout` seconds; whether everything has arrived."""
        self._closing.set()
        self._thread.join(timeout)
        return not self._thread.is_alive() and not self._problem

    def _work(self) -> None:
        journal, writer, wait = Journal(self._journal_path), None, IDLE_SECONDS
        while True:
            closing = self._closing.is_set()
            try:
                writer = writer or MlflowWriter(self.sweep, journal, self.uri)
                delivered = writer.deliver()
                wait = IDLE_SECONDS
                if self._problem:
                    self._say("MLflow answers again; what it missed is being delivered")
                self._problem = ""
                if not delivered and closing:
                    writer.close_parent("KILLED")  # until the results say otherwise
                    break
                if delivered:
                    continue
            except Exception as error:
                if not self._problem:
                    self._say(f"MLflow at {self.uri} cannot be written to; training goes on. {_first_line(error)}")
                self._problem = _first_line(error)
                if closing:
                    break
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
            self._closing.wait(wait)
        journal.close()


class MlflowWriter:
    """Brings MLflow up to date with a journal, one `deliver` at a time."""

    def __init__(self, sweep: Sweep, journal: Journal, uri: str) -> None:
        self.sweep = sweep
        self.journal = journal
        self.client = open_client(uri)
        self.experiment_id = ensure_experiment(self.client, uri, sweep.config.tracking.experiment)
        self._runs: dict[int, str] = {}
        self.parent_id = self._find_or_create_parent()

    def deliver(self) -> bool:
        """Writes one block of everything that MLflow lacks; whether there was anything."""
        opened = self._open_runs()
        points = self._deliver_points()
        images = self._deliver_images()
        if points or images:
            return True
        return self._close_runs() or opened

    # --- Runs ---------------------------------------------------------------------------------------------------------

    def _find_or_create_parent(self) -> str:
        """This sweep's parent run; one that a killed driver made just before it could note it down is found again."""
        known = self.journal.meta("parent_run_id", "")
        found = known or next(iter(self._search(names.SWEEP_KIND).values()), "")
        if not found:
            run = self.client.create_run(
                self.experiment_id,
                run_name=self.sweep.config.name,
                tags={
                    names.SWEEP_TAG: self.journal.meta("id"),
                    names.KIND_TAG: names.SWEEP_KIND,
                    names.FRAMES_TAG: self.journal.meta("frames"),
                    names.OBJECTIVES_TAG: ",".join(self.sweep.config.objectives),
                    **source_tags(),
                },
            )
            found = str(run.info.run_id)
        if known != found:
            self.journal.set_meta("parent_run_id", found)
            self._log_parent(found)
        self.client.log_text(found, self.sweep.config.to_yaml(), names.SWEEP_ARTIFACT)  # it may have been extended
        self.client.update_run(found, status="RUNNING")
        for kind in (names.TRIAL_KIND, names.REPLICATE_KIND):
            for number, run_id in self._search(kind).items():
                self.journal.set_run_id(number, run_id)
        return found

    def _search(self, kind: str) -> dict[int, str]:
        """Run ids of this sweep's runs of a kind, by trial number (-1 for the sweep itself)."""
        query = f"tags.`{names.SWEEP_TAG}` = '{self.journal.meta('id')}' and tags.`{names.KIND_TAG}` = '{kind}'"
        found: dict[int, str] = {}
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], query, ViewType.ACTIVE_ONLY, max_results=1000, page_token=token
            )
            found |= {int(run.data.tags.get(names.TRIAL_TAG, -1)): run.info.run_id for run in page}
            token = page.token
            if not token:
                return found

    def _log_parent(self, run_id: str) -> None:
        self.client.log_text(run_id, _installed_packages(), names.ENVIRONMENT_ARTIFACT)
        diff = _git("diff", "HEAD")
        if diff:
            self.client.log_text(run_id, diff, names.GIT_DIFF_ARTIFACT)
        baselines: dict[str, float] = json.loads(self.journal.meta("baselines"))
        now = int(time.time() * 1000)
        metrics = [Metric(f"{names.BASELINE_PREFIX}{key}", value, now, 0) for key, value in baselines.items()]
        self.client.log_batch(run_id, metrics=metrics)

    def _open_runs(self) -> bool:
        """A run for every trial that has started and has none; trials taken up again run again."""
        opened = False
        for trial in self.journal.out_of_step():
            if trial.run_id is None and self.journal.environment(trial.number):
                self._create_run(trial)
                opened = True
            elif trial.run_id is not None and trial.outcome == "running":
                self.client.update_run(trial.run_id, status="RUNNING")
                self.journal.set_synced(trial.number, "running")
        return opened

    def _create_run(self, trial: TrialRecord) -> None:
        environment = self.journal.environment(trial.number)
        original = None if trial.replicate_of is None else self._run_id(trial.replicate_of)
        run: Run = self.client.create_run(
            self.experiment_id,
            start_time=int(trial.created * 1000),
            run_name=f"{self.sweep.config.name}-{trial.number:03d}",
            tags={
                "mlflow.parentRunId": original or self.parent_id,
                names.SWEEP_TAG: self.journal.meta("id"),
                names.KIND_TAG: names.TRIAL_KIND if trial.replicate_of is None else names.REPLICATE_KIND,
                names.TRIAL_TAG: str(trial.number),
                names.ORIGIN_TAG: trial.origin,
                names.OUTCOME_TAG: "running",
                names.FRAMES_TAG: self.journal.meta("frames"),
                names.HOST_TAG: environment["host"],
                names.DEVICE_TAG: environment["device"],
                **source_tags(),
            },
        )
        run_id = str(run.info.run_id)
        params = [Param(name, _text(value)) for name, value in trial.params.items()]
        self.client.log_batch(run_id, params=params)
        self.client.log_text(run_id, trial.config, names.CONFIG_ARTIFACT)
        self.journal.set_run_id(trial.number, run_id)
        self.journal.set_synced(trial.number, "running")

    def _close_runs(self) -> bool:
        """Final values, outcome and status of every trial that has ended since the last time."""
        ended = [t for t in self.journal.out_of_step() if t.run_id is not None and t.outcome != "running"]
        for trial in ended:
            run_id = str(trial.run_id)
            if trial.outcome in FINAL_OUTCOMES:
                self.client.log_batch(run_id, metrics=self._summary(trial))
            rung = self.journal.last_rung(trial.number)
            tags = {names.OUTCOME_TAG: trial.outcome, names.REASON_TAG: trial.reason[:LONGEST_TAG]}
            tags |= {names.RUNG_TAG: str(rung)} if rung is not None else {}
            tags |= diagnosis_tags(self.journal.diagnoses(trial.number))
            self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
            for attempt in [each for each in self.journal.attempts(trial.number) if each.error][-1:]:
                self.client.log_text(run_id, attempt.error, names.ERROR_ARTIFACT)
            ended_at = int((trial.ended or time.time()) * 1000)
            self.client.set_terminated(run_id, STATUS[trial.outcome], ended_at)
            self.journal.set_synced(trial.number, trial.outcome)
        return bool(ended)

    def _summary(self, trial: TrialRecord) -> list[Metric]:
        """`final/…` of the last evaluation for every validation metric, and `best/…` of all where one is better."""
        evaluations = self.journal.evaluations(trial.number)
        now = int((trial.ended or time.time()) * 1000)
        metrics = [Metric(f"{names.FINAL_PREFIX}{names.STEP}", trial.step, now, trial.step)]
        for key, value in (evaluations[max(evaluations)] if evaluations else {}).items():
            metrics.append(Metric(f"{names.FINAL_PREFIX}{key}", value, now, trial.step))
            if key in BETTER:
                best = BETTER[key](evaluations, key=lambda step, key=key: evaluations[step][key])
                metrics.append(Metric(f"{names.BEST_PREFIX}{key}", evaluations[best][key], now, best))
        return metrics

    # --- Curves and images --------------------------------------------------------------------------------------------

    def _run_id(self, trial: int) -> str | None:
        if trial not in self._runs:
            self._runs |= {t.number: t.run_id for t in self.journal.trials() if t.run_id is not None}
        return self._runs.get(trial)

    def _deliver_points(self) -> bool:
        cursor = int(self.journal.meta("points_cursor", "0"))
        block = self.journal.points_after(cursor, POINTS_PER_BLOCK)
        block = list(itertools.takewhile(lambda row: self._run_id(row[1]) is not None, block))
        by_trial: dict[int, list[Metric]] = defaultdict(list)
        for _, trial, point in block:
            by_trial[trial].append(Metric(point.key, point.value, point.time, point.step))
        for trial, metrics in by_trial.items():
            self.client.log_batch(self._runs[trial], metrics=metrics)
        if block:
            self.journal.set_meta("points_cursor", str(block[-1][0]))
        return bool(block)

    def _deliver_images(self) -> bool:
        cursor = int(self.journal.meta("images_cursor", "0"))
        block = self.journal.images_after(cursor, IMAGES_PER_BLOCK)
        block = list(itertools.takewhile(lambda image: self._run_id(image.trial) is not None, block))
        for image in block:
            log_png(self.client, self._runs[image.trial], image.png, image.key, image.step, image.time)
            self.journal.set_meta("images_cursor", str(image.id))
        return bool(block)

    # --- The end of a sweep -------------------------------------------------------------------------------------------

    def log_results(
        self,
        best: list[int],
        front: set[int],
        infeasible: set[int],
        models: Mapping[int, Path],
        summary: str,
        metrics: Mapping[str, float],
    ) -> None:
        """Weights of the best trials and where they lie, who is on the front, who violates a constraint, and the
        parent's summary."""
        for trial in self.journal.trials():
            if trial.run_id is None:
                continue
            tags = {names.ON_FRONT_TAG: str(trial.number in front).lower()}
            if trial.outcome == "completed" and trial.replicate_of is None:
                tags[names.FEASIBLE_TAG] = str(trial.number not in infeasible).lower()
            if trial.number in models:
                tags |= {
                    names.MODEL_PATH_TAG: str(models[trial.number]),
                    names.MODEL_SHA_TAG: _sha256(models[trial.number]),
                }
            self.client.log_batch(trial.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
            if trial.number in best:
                self.client.log_artifact(trial.run_id, str(models[trial.number]))
        now = int(time.time() * 1000)
        self.client.log_batch(self.parent_id, metrics=[Metric(key, value, now, 0) for key, value in metrics.items()])
        self.client.set_tag(self.parent_id, "mlflow.note.content", summary)

    def log_confirmations(self, confirmations: Mapping[int, Confirmation]) -> None:
        """What fresh seeds made of the best: `confirmed/…` and `confirmed_half_width/…` of each objective."""
        now = int(time.time() * 1000)
        for number, found in confirmations.items():
            metrics = {f"{names.CONFIRMED_PREFIX}{key}": value for key, value in found.mean.items()}
            metrics |= {f"{names.HALF_WIDTH_PREFIX}{key}": value for key, value in found.half_width.items()}
            run_id = self._run_id(number)
            if run_id is not None:
                self.client.log_batch(run_id, metrics=[Metric(k, v, now, 0) for k, v in metrics.items()])
                self.client.set_tag(run_id, names.CONFIRMED_TAG, f"{found.completed} of {found.begun} seeds")

    def close_parent(self, status: str) -> None:
        self.client.set_terminated(self.parent_id, status)


def log_evaluation(client: MlflowClient, run_id: str, evaluation: Evaluation) -> None:
    """Points and image grids of one Evaluation; repeating it changes nothing but the images' files."""
    metrics = [Metric(p.key, p.value, p.time, p.step) for p in evaluation.points]
    for start in range(0, len(metrics), POINTS_PER_BLOCK):
        client.log_batch(run_id, metrics=metrics[start : start + POINTS_PER_BLOCK])
    for key, png in evaluation.images.items():
        log_png(client, run_id, png, key, evaluation.step, int(time.time() * 1000))


def log_png(client: MlflowClient, run_id: str, png: bytes, key: str, step: int, timestamp: int) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(png)))
    client.log_image(run_id, pixels, key=key, step=step, timestamp=timestamp, synchronous=True)


def diagnosis_tags(diagnoses: Mapping[str, bool | None]) -> dict[str, str]:
    """true or false by the diagnosis' name; what could not be told has no tag."""
    return {name: str(holds).lower() for name, holds in diagnoses.items() if holds is not None}


def source_tags() -> dict[str, str]:
    """The commit that this package runs from, in MLflow's tag and in ours."""
    sha = _git("rev-parse", "HEAD").strip()
    return {names.GIT_TAG: sha, "mlflow.source.git.commit": sha} if sha else {}


def source_changed() -> bool:
    """Whether files differ from that commit."""
    return bool(_git("diff", "HEAD", "--stat"))


def _git(*arguments: str) -> str:
    """Output of a git command in this package's repository; "" outside one."""
    try:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _installed_packages() -> str:
    found = {(d.metadata["Name"] or "").lower(): d.version for d in distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _first_line(error: BaseException) -> str:
    text = error.message if isinstance(error, MlflowException) else str(error)
    return f"{type(error).__name__}: {(text or '').strip().splitlines()[0] if text else ''}"
