"""The parts of trials that a server may reject: each is sent by itself and set aside in the journal if rejected."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.outbox import Outbox
from search.journal.records import ImageRecord, RefusalRecord, TrialRecord
from search.tracking.errors import explain, is_refusal
from search.tracking.images import log_png
from search.tracking.runs import POINTS_PER_BLOCK, is_active, text_of
from vaegan_core.evaluation import Point

LONGEST_TAG = 5000
THE_SWEEP = -1
"""Stands for the sweep's own run where a trial's number is expected."""


class Sender:
    """Sends parts of trials and of the sweep. What the server rejects is set aside, so that it holds up nothing else.

    Any other failure is raised: the call may succeed later.
    """

    def __init__(self, client: MlflowClient, journal: Journal, parent_id: str) -> None:
        self.client = client
        self.journal = journal
        self.outbox = Outbox(journal)
        self.parent_id = parent_id
        self.sweep_files_sent = False
        self._run_ids: dict[int, str] = {}

    def run_id(self, trial: int) -> str | None:
        """Id of the trial's run; None before it has one."""
        if trial not in self._run_ids:
            run_id = self.journal.trial(trial).run_id
            if run_id is None:
                return None
            self._run_ids[trial] = run_id
        return self._run_ids[trial]

    # --- Sending ------------------------------------------------------------------------------------------------------

    def offer(self, trial: int, kind: str, send: Callable[[], object]) -> None:
        """Sends a part of a trial, or of the sweep, by calling `send`; sets the part aside if the server rejects it."""
        try:
            send()
        except Exception as error:
            if not self._refuses_this_only(error):
                raise
            what = f"the {kind} of {'the sweep' if trial == THE_SWEEP else f'trial {trial}'}"
            self.outbox.set_aside([RefusalRecord(trial, kind, 0, what, explain(error))])

    def send_params(self, trial: TrialRecord) -> None:
        params = [Param(name, text_of(value)) for name, value in trial.params.items()]
        self.offer(trial.number, "parameters", lambda: self.client.log_batch(str(trial.run_id), params=params))

    def send_metrics(self, trial: TrialRecord, metrics: list[Metric]) -> None:
        self.offer(trial.number, "metrics", lambda: self.client.log_batch(str(trial.run_id), metrics=metrics))

    def send_tags(self, trial: TrialRecord, tags: Mapping[str, str]) -> None:
        entities = [RunTag(key, value[:LONGEST_TAG]) for key, value in tags.items()]
        self.offer(trial.number, "tags", lambda: self.client.log_batch(str(trial.run_id), tags=entities))

    def send_points(self, trial: int, points: Sequence[tuple[int, Point]]) -> None:
        """Sends curve points, each with its id in the journal."""
        self.outbox.set_aside(self._refused_points(trial, points))

    def send_passed_over(self, trial: int, run_id: str) -> None:
        """Sends what came of a trial before it had a run."""
        self._run_ids[trial] = run_id
        points, images = self.outbox.passed_over(trial)
        for start in range(0, len(points), POINTS_PER_BLOCK):
            self.send_points(trial, points[start : start + POINTS_PER_BLOCK])
        for image in images:
            self.send_image(image)

    def send_image(self, image: ImageRecord) -> None:
        """Sends an image grid, which then leaves the journal."""
        try:
            log_png(self.client, str(self.run_id(image.trial)), image.png, image.key, image.step, image.time)
        except Exception as error:
            if not self._refuses_this_only(error):
                raise
            what = f"{image.key} of trial {image.trial} at step {image.step}"
            self.outbox.set_aside([RefusalRecord(image.trial, "image", image.id, what, explain(error))])
        else:
            self.outbox.discard_image(image.id)

    def _refused_points(self, trial: int, points: Sequence[tuple[int, Point]]) -> list[RefusalRecord]:
        """Sends points in as few calls as the server accepts, halving what it rejects; returns the rejected points."""
        run_id = str(self.run_id(trial))
        metrics = [Metric(point.key, point.value, point.time, point.step) for _, point in points]
        try:
            self.client.log_batch(run_id, metrics=metrics)
            return []
        except Exception as error:
            if not self._refuses_this_only(error):
                raise
            reason = explain(error)
        if len(points) > 1 and is_active(self.client, run_id):
            half = len(points) // 2
            return [*self._refused_points(trial, points[:half]), *self._refused_points(trial, points[half:])]
        return [
            RefusalRecord(trial, "point", id, f"{point.key} of trial {trial} at step {point.step}", reason)
            for id, point in points
        ]

    def _refuses_this_only(self, error: Exception) -> bool:
        """Whether the server works but will never accept this. One that rejects everything is out of order: raises."""
        if not is_refusal(error):
            return False
        self.client.get_run(self.parent_id)
        return True

    # --- Sending again what was rejected ------------------------------------------------------------------------------

    def retry_refused(self) -> None:
        """Sends again what was rejected earlier: the server may have changed, or be another one."""
        points: dict[int, list[RefusalRecord]] = defaultdict(list)
        for record in self.outbox.refused():
            if record.kind == "point":
                points[record.trial].append(record)
            elif record.kind == "image":
                self.send_image(self.outbox.image(record.ref))
            else:
                self._send_with_next_delivery(record)
        for trial, records in points.items():
            again = self._refused_points(trial, [(record.ref, self.outbox.point(record.ref)) for record in records])
            left = {record.ref for record in again}
            self.outbox.accepted([record for record in records if record.ref not in left])

    def _send_with_next_delivery(self, record: RefusalRecord) -> None:
        """Marks a part of a trial or of the sweep as unsent; the next delivery may have it rejected again."""
        if record.trial == THE_SWEEP:
            self.sweep_files_sent = False
            self.journal.set_meta(Meta.SUMMARY_SENT, "")
            self.journal.set_meta(Meta.EVALUATIONS_SENT, "")
            self.journal.set_meta(Meta.QUESTIONS_SENT, "")
        else:
            self.outbox.resend(record.trial)
        if record.kind == "weights":
            sent = json.loads(self.journal.meta(Meta.MODELS_SENT, "{}"))
            sent.pop(str(record.trial), None)
            self.journal.set_meta(Meta.MODELS_SENT, json.dumps(sent))
        self.outbox.accepted([record])
