"""Journal to MLflow: the only module that writes a sweep to MLflow.

`deliver` brings MLflow up to date with the journal. It can be cut off at any moment and called again: what has arrived
is noted in the journal, and what arrives twice changes nothing, because a point keeps its key, value, step and time, an
image its file, and a run is looked for by its tags before it is made again. What the server refuses for good is set
aside in the journal, so that it holds up nothing else.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from search.config.sweep import Sweep, flat
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.outbox import Outbox
from search.journal.records import ImageRecord, RefusalRecord, TrialRecord
from search.names import FINAL_OUTCOMES, STEP, Artifact, Kind, Outcome, Prefix, Tag
from search.paths import trial_directory
from search.provenance import installed_packages, source_diff, source_tags
from search.standings.standings import Standings, standings
from search.tracking.client import ensure_experiment, open_client
from search.tracking.description import summarise
from search.tracking.errors import MISSING, explain, is_refusal
from search.tracking.images import log_png
from search.tracking.runs import STATUS, best_step, diagnosis_tags, search_all, text_of
from vaegan_core.evaluation import Point

POINTS_PER_BLOCK = 1000
IMAGES_PER_BLOCK = 32
LONGEST_TAG = 5000
THE_SWEEP = -1
"""In place of a trial's number."""
SUMMARY_SECONDS = 30.0
"""Least time between two summaries of a running sweep."""
SUMMARY_SHARE = 0.05
"""Of the time that summaries may take."""


class MlflowWriter:
    """Brings MLflow up to date with the journal of the sweep in `directory`."""

    def __init__(self, sweep: Sweep, journal: Journal, directory: Path, uri: str) -> None:
        self.sweep = sweep
        self.journal = journal
        self.outbox = Outbox(journal)
        self.directory = directory
        self.client = open_client(uri)
        self.experiment_id = ensure_experiment(self.client, uri, sweep.config.tracking.experiment)
        self._runs: dict[int, str] = {}
        self._parent_files_sent = False
        self._next_summary = 0.0
        self.parent_id = self._find_or_create_parent()

    def deliver(self) -> None:
        """Writes everything that MLflow lacks; files last, for they may lie on another server than all else."""
        self._open_runs()
        while self._deliver_points():
            pass
        self._close_runs()
        if time.monotonic() >= self._next_summary:
            begun = time.monotonic()
            self._summarise("running")
            taken = time.monotonic() - begun
            self._next_summary = time.monotonic() + max(SUMMARY_SECONDS, taken / SUMMARY_SHARE)
        self._deliver_files()
        while self._deliver_images():
            pass

    def finish(self, stopped: str) -> None:
        """The rest: what was refused before, results, status; `stopped` says why the sweep ended early, "" if it did
        not."""
        self.retry_refused()
        self.deliver()
        found = self._summarise(f"stopped early: {stopped}" if stopped else "finished")
        self._log_confirmations(found)
        self._deliver_models(found)
        self._delete_duplicates()
        self.client.set_terminated(self.parent_id, "KILLED" if stopped else "FINISHED")

    # --- Runs ---------------------------------------------------------------------------------------------------------

    def _find_or_create_parent(self) -> str:
        found = self.journal.meta(Meta.PARENT_RUN_ID, "") or self._made(Kind.SWEEP)
        if not found:
            found = self._create(
                {
                    "run_name": self.sweep.config.name,
                    "tags": {
                        **self._common_tags(Kind.SWEEP),
                        Tag.OBJECTIVES: ",".join(self.sweep.config.objectives),
                    },
                }
            )
        self.journal.set_meta(Meta.PARENT_RUN_ID, found)
        started = int(self.client.get_run(found).info.start_time)
        baselines: dict[str, float] = json.loads(self.journal.meta(Meta.BASELINES))
        metrics = [Metric(f"{Prefix.BASELINE}{key}", value, started, 0) for key, value in baselines.items()]
        constants = [Param(name, text_of(value)) for name, value in flat(self.sweep.config.base)]
        self.client.log_batch(found, metrics=metrics, params=constants)
        self.client.update_run(found, status="RUNNING")
        return found

    def _common_tags(self, kind: str) -> dict[str, str]:
        return {
            Tag.SWEEP_ID: self.journal.meta(Meta.ID),
            Tag.SWEEP_NAME: self.sweep.config.name,
            Tag.KIND: kind,
            Tag.FRAMES: self.journal.meta(Meta.FRAMES),
            **source_tags(),
        }

    def _made(self, kind: str, trial: int | None = None) -> str:
        """The run that was made before it could be noted down, "" without."""
        of_trial = "" if trial is None else f" and tags.`{Tag.TRIAL}` = '{trial}'"
        return next((str(run.info.run_id) for run in self._search(kind, of_trial)), "")

    def _create(self, options: dict[str, Any]) -> str:
        """Makes a run. Where the call fails, the server may have made it all the same, or still do so."""
        try:
            run: Run = self.client.create_run(self.experiment_id, **options)
        except Exception:
            self.journal.set_meta(Meta.MAYBE_DUPLICATES, "yes")
            raise
        return str(run.info.run_id)

    def _delete_duplicates(self) -> None:
        """Of runs that a slow server made twice, those that the journal does not know."""
        if not self.journal.meta(Meta.MAYBE_DUPLICATES, ""):
            return
        known = {self.parent_id, *(trial.run_id for trial in self.journal.trials())}
        for kind in (Kind.SWEEP, Kind.TRIAL, Kind.REPLICATE):
            for run in list(self._search(kind)):
                if run.info.run_id not in known:
                    self.client.delete_run(run.info.run_id)
        self.journal.set_meta(Meta.MAYBE_DUPLICATES, "")

    def _search(self, kind: str, more: str = "") -> Iterator[Run]:
        """This sweep's runs of a kind."""
        query = f"tags.`{Tag.SWEEP_ID}` = '{self.journal.meta(Meta.ID)}' and tags.`{Tag.KIND}` = '{kind}'{more}"
        return search_all(self.client, self.experiment_id, query)

    def _open_runs(self) -> None:
        """A run for every trial that has started and has none; trials taken up again run again."""
        for trial in self.outbox.out_of_step():
            if trial.run_id is None and self.journal.environment(trial.number):
                kind = Kind.TRIAL if trial.replicate_of is None else Kind.REPLICATE
                run_id = self._made(kind, trial.number) or self._create(self._options(trial, kind))
                self.outbox.set_run_id(trial.number, run_id)
        for trial in self.outbox.out_of_step():
            if trial.run_id is None:
                continue
            if not trial.synced:
                self._send_params(trial)
            if trial.outcome == Outcome.RUNNING:
                self._offer(trial.number, "status", partial(self.client.update_run, trial.run_id, status="RUNNING"))
                self._send_tags(trial, {Tag.OUTCOME: Outcome.RUNNING, **self._attempt_tags(trial)})
                self.outbox.set_synced(trial.number, Outcome.RUNNING)

    def _options(self, trial: TrialRecord, kind: str) -> dict[str, Any]:
        environment = self.journal.environment(trial.number)
        original = None if trial.replicate_of is None else self._run_id(trial.replicate_of)
        return {
            "start_time": int(trial.created * 1000),
            "run_name": f"{self.sweep.config.name}-{trial.number:03d}",
            "tags": {
                "mlflow.parentRunId": original or self.parent_id,
                "mlflow.loggedImages": "True",
                **self._common_tags(kind),
                Tag.TRIAL: str(trial.number),
                Tag.ORIGIN: trial.origin,
                Tag.OUTCOME: Outcome.RUNNING,
                Tag.ON_FRONT: "false",
                Tag.HOST: environment["host"],
                Tag.DEVICE: environment["device"],
            },
        }

    def _close_runs(self) -> None:
        """Final values, outcome and status of every trial that has ended since the last time."""
        for trial in self.outbox.out_of_step():
            if trial.run_id is None or trial.outcome == Outcome.RUNNING:
                continue
            if trial.outcome in FINAL_OUTCOMES:
                self._send_metrics(trial, self._final_values(trial))
            rung = self.journal.last_rung(trial.number)
            tags = {Tag.OUTCOME: trial.outcome, Tag.REASON: trial.reason, **self._attempt_tags(trial)}
            tags |= {Tag.RUNG: str(rung)} if rung is not None else {}
            tags |= diagnosis_tags(self.journal.diagnoses(trial.number))
            if trial.outcome == Outcome.COMPLETED and trial.replicate_of is None:
                feasible = self.sweep.feasible(self.journal.last_metrics(trial.number))
                tags[Tag.FEASIBLE] = str(feasible).lower()
            self._send_tags(trial, tags)
            ended_at = int((trial.ended or time.time()) * 1000)
            status = STATUS[trial.outcome]
            self._offer(trial.number, "status", partial(self.client.set_terminated, trial.run_id, status, ended_at))
            self.outbox.set_synced(trial.number, trial.outcome)

    def _attempt_tags(self, trial: TrialRecord) -> dict[str, str]:
        """How often it was begun, from where, and what came out different then; nothing where it was begun once."""
        attempts = self.journal.all_attempts(trial.number)
        if len(attempts) < 2:
            return {}
        tags: dict[str, str] = {
            Tag.ATTEMPTS: str(len(attempts)),
            Tag.RESUMED: ", ".join(str(attempt.from_step) for attempt in attempts[1:]),
        }
        differing = [attempt for attempt in attempts if attempt.mismatches]
        if differing:
            total = sum(attempt.mismatches for attempt in differing)
            tags[Tag.MISMATCH] = f"{total} points; the first: {differing[0].mismatch}"
        return tags

    def _final_values(self, trial: TrialRecord) -> list[Metric]:
        """`final/…` of the last evaluation for every validation metric, and `best/…` of all where one is better."""
        evaluations = self.journal.evaluations(trial.number)
        now = int((trial.ended or time.time()) * 1000)
        metrics = [Metric(f"{Prefix.FINAL}{STEP}", trial.step, now, trial.step)]
        for key, value in (evaluations[max(evaluations)] if evaluations else {}).items():
            metrics.append(Metric(f"{Prefix.FINAL}{key}", value, now, trial.step))
            best = best_step(key, evaluations)
            if best is not None:
                metrics.append(Metric(f"{Prefix.BEST}{key}", evaluations[best][key], now, best))
        return metrics

    # --- Parts of a trial that may be refused -------------------------------------------------------------------------

    def _send_params(self, trial: TrialRecord) -> None:
        params = [Param(name, text_of(value)) for name, value in trial.params.items()]
        self._offer(trial.number, "parameters", lambda: self.client.log_batch(str(trial.run_id), params=params))

    def _send_metrics(self, trial: TrialRecord, metrics: list[Metric]) -> None:
        self._offer(trial.number, "metrics", lambda: self.client.log_batch(str(trial.run_id), metrics=metrics))

    def _send_tags(self, trial: TrialRecord, tags: Mapping[str, str]) -> None:
        entities = [RunTag(key, value[:LONGEST_TAG]) for key, value in tags.items()]
        self._offer(trial.number, "tags", lambda: self.client.log_batch(str(trial.run_id), tags=entities))

    def _offer(self, trial: int, kind: str, send: Callable[[], object]) -> None:
        """Sends a part of a trial, or of the sweep; sets it aside where the server refuses that part only."""
        try:
            send()
        except Exception as error:
            if not self._refuses_this_only(error):
                raise
            what = f"the {kind} of {'the sweep' if trial == THE_SWEEP else f'trial {trial}'}"
            self.outbox.set_aside([RefusalRecord(trial, kind, 0, what, explain(error))])

    def _refuses_this_only(self, error: Exception) -> bool:
        """Whether the server answers, and will never accept this; one that refuses everything is out of order."""
        if not is_refusal(error):
            return False
        self.client.get_run(self.parent_id)
        return True

    def retry_refused(self) -> None:
        """Offers once more what was refused: the server may be another one now."""
        points: dict[int, list[RefusalRecord]] = defaultdict(list)
        for record in self.outbox.refused():
            if record.kind == "point":
                points[record.trial].append(record)
            elif record.kind == "image":
                self._send_image(self.outbox.image(record.ref))
            else:
                self._send_again(record)
        for trial, records in points.items():
            again = self._send_points(trial, [(record.ref, self.outbox.point(record.ref)) for record in records])
            left = {record.ref for record in again}
            self.outbox.accepted([record for record in records if record.ref not in left])

    def _send_again(self, record: RefusalRecord) -> None:
        """Has a part of a trial or of the sweep sent with the next delivery, where it may be refused again."""
        if record.trial == THE_SWEEP:
            self._parent_files_sent = False
            self.journal.set_meta(Meta.SUMMARY_SENT, "")
        else:
            self.outbox.resend(record.trial)
        if record.kind == "weights":
            told = json.loads(self.journal.meta(Meta.MODELS_SENT, "{}"))
            told.pop(str(record.trial), None)
            self.journal.set_meta(Meta.MODELS_SENT, json.dumps(told))
        self.outbox.accepted([record])

    # --- Curves -------------------------------------------------------------------------------------------------------

    def _run_id(self, trial: int) -> str | None:
        if trial not in self._runs:
            run_id = self.journal.trial(trial).run_id
            if run_id is None:
                return None
            self._runs[trial] = run_id
        return self._runs[trial]

    def _deliver_points(self) -> bool:
        """One block; whether there may be more."""
        cursor = int(self.journal.meta(Meta.POINTS_CURSOR, "0"))
        block = self.outbox.points_after(cursor, POINTS_PER_BLOCK)
        by_trial: dict[int, list[tuple[int, Point]]] = defaultdict(list)
        delivered = cursor
        for number, trial, point in block:
            if self._run_id(trial) is None:
                break
            by_trial[trial].append((number, point))
            delivered = number
        for trial, points in by_trial.items():
            self.outbox.set_aside(self._send_points(trial, points))
        if delivered > cursor:
            self.journal.set_meta(Meta.POINTS_CURSOR, str(delivered))
        return delivered > cursor

    def _send_points(self, trial: int, points: Sequence[tuple[int, Point]]) -> list[RefusalRecord]:
        """Sends points of a trial, with their ids, in as few calls as the server takes; returns those it refuses."""
        run_id = str(self._run_id(trial))
        metrics = [Metric(point.key, point.value, point.time, point.step) for _, point in points]
        try:
            self.client.log_batch(run_id, metrics=metrics)
            return []
        except Exception as error:
            if not self._refuses_this_only(error):
                raise
            reason = explain(error)
        if len(points) > 1 and self._is_active(run_id):
            half = len(points) // 2
            return [*self._send_points(trial, points[:half]), *self._send_points(trial, points[half:])]
        return [
            RefusalRecord(trial, "point", number, f"{p.key} of trial {trial} at step {p.step}", reason)
            for number, p in points
        ]

    def _is_active(self, run_id: str) -> bool:
        """Whether a run is there and not deleted: one that is gone takes nothing."""
        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code != MISSING:
                raise
            return False

    # --- Files and images ---------------------------------------------------------------------------------------------

    def _deliver_files(self) -> None:
        """The sweep's own files, then configuration and error of every trial whose files changed."""
        if not self._parent_files_sent:
            for name, text in (
                (Artifact.SWEEP, self.sweep.config.to_yaml()),
                (Artifact.ENVIRONMENT, installed_packages()),
                (Artifact.GIT_DIFF, source_diff()),
            ):
                if text:
                    self._offer(THE_SWEEP, name, partial(self.client.log_text, self.parent_id, text, name))
            self._parent_files_sent = True
        for trial, version in self.outbox.changed_files():
            errors = [each.error for each in self.journal.all_attempts(trial.number) if each.error]
            self._offer(trial.number, "files", partial(self._send_files, trial, errors[-1:]))
            self.outbox.set_files_sent(trial.number, version)

    def _send_files(self, trial: TrialRecord, errors: list[str]) -> None:
        self.client.log_text(str(trial.run_id), trial.config, Artifact.CONFIG)
        for error in errors:
            self.client.log_text(str(trial.run_id), error, Artifact.ERROR)

    def _deliver_images(self) -> bool:
        """One block; whether there may be more."""
        cursor = int(self.journal.meta(Meta.IMAGES_CURSOR, "0"))
        block = self.outbox.images_after(cursor, IMAGES_PER_BLOCK)
        for image in block:
            if self._run_id(image.trial) is None:
                return False
            self._send_image(image)
            self.journal.set_meta(Meta.IMAGES_CURSOR, str(image.id))
        return bool(block)

    def _send_image(self, image: ImageRecord) -> None:
        try:
            log_png(self.client, str(self._run_id(image.trial)), image.png, image.key, image.step, image.time)
        except Exception as error:
            if not self._refuses_this_only(error):
                raise
            what = f"{image.key} of trial {image.trial} at step {image.step}"
            self.outbox.set_aside([RefusalRecord(image.trial, "image", image.id, what, explain(error))])
        else:
            self.outbox.discard_image(image.id)

    # --- Results ------------------------------------------------------------------------------------------------------

    def _summarise(self, state: str) -> Standings:
        """The parent's description and values, and who is on the front, where they have changed."""
        found = standings(self.sweep, self.journal)
        trials = self.journal.trials()
        text = summarise(self.sweep, found, trials, state)
        self._tell_front(found.front)
        if self.journal.meta(Meta.SUMMARY_SENT, "") == text:
            return found
        ended = sum(trial.outcome in FINAL_OUTCOMES for trial in trials)
        metrics = {"sweep/hypervolume": found.hypervolume, "sweep/trials": float(len(trials))}
        if found.best:
            metrics |= {f"{Prefix.BEST}{key}": v for key, v in found.metrics[found.best[0].number].items()}
        now = int(max((trial.ended or trial.created for trial in trials), default=time.time()) * 1000)
        points = [Metric(key, value, now, ended) for key, value in metrics.items()]
        self._offer(THE_SWEEP, "results", partial(self.client.log_batch, self.parent_id, metrics=points))
        note = partial(self.client.set_tag, self.parent_id, "mlflow.note.content", text)
        self._offer(THE_SWEEP, "description", note)
        self.journal.set_meta(Meta.SUMMARY_SENT, text)
        return found

    def _tell_front(self, front: set[int]) -> None:
        told = set(json.loads(self.journal.meta(Meta.ON_FRONT_SENT, "[]")))
        for number in sorted(told ^ front):
            trial = self.journal.trial(number)
            if trial.run_id is None:
                continue
            self._send_tags(trial, {Tag.ON_FRONT: str(number in front).lower()})
            told ^= {number}
            self.journal.set_meta(Meta.ON_FRONT_SENT, json.dumps(sorted(told)))

    def _log_confirmations(self, found: Standings) -> None:
        """What fresh seeds made of the best: `confirmed/…` and `confirmed_half_width/…` of each objective."""
        for number, confirmation in found.confirmations.items():
            trial = self.journal.trial(number)
            last = max(t.ended or t.created for t in self.journal.trials() if t.replicate_of == number)
            metrics = {f"{Prefix.CONFIRMED}{key}": value for key, value in confirmation.mean.items()}
            metrics |= {f"{Prefix.HALF_WIDTH}{key}": value for key, value in confirmation.half_width.items()}
            points = [Metric(key, value, int(last * 1000), confirmation.begun) for key, value in metrics.items()]
            self._send_metrics(trial, points)
            self._send_tags(trial, {Tag.CONFIRMED: f"{confirmation.completed} of {confirmation.begun} seeds"})

    def _deliver_models(self, found: Standings) -> None:
        """Weights of the best trials as artifacts; of all that are kept, where they lie and their hash."""
        told: dict[str, str] = json.loads(self.journal.meta(Meta.MODELS_SENT, "{}"))
        kept = [
            (trial, path)
            for trial in found.best
            if (path := (trial_directory(self.directory, trial.number) / Artifact.MODEL).resolve()).is_file()
        ]
        for place, (trial, path) in enumerate(kept):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            uploaded = place < self.sweep.config.tracking.keep_models
            if told.get(str(trial.number)) == f"{digest}{' uploaded' if uploaded else ''}":
                continue
            self._send_tags(trial, {Tag.MODEL_PATH: str(path), Tag.MODEL_SHA: digest})
            if uploaded:
                send = partial(self.client.log_artifact, str(trial.run_id), str(path))
                self._offer(trial.number, "weights", send)
            told[str(trial.number)] = f"{digest}{' uploaded' if uploaded else ''}"
            self.journal.set_meta(Meta.MODELS_SENT, json.dumps(told))


# --- Single runs ------------------------------------------------------------------------------------------------------
