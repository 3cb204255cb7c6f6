"""Journal to MLflow: the only way a sweep gets there.

`deliver` brings MLflow up to date with the journal. It can be cut off at any moment and called again: what has arrived
is noted in the journal, and what arrives twice changes nothing, because a point keeps its key, value, step and time, an
image its file, and a run is looked for by its tags before it is made. What the server rejects for good is set aside in
the journal, so that it holds up nothing else.
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import partial
from pathlib import Path

from search.config.stretches import lineage_yaml
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.lineage import lineage
from search.journal.meta import Meta
from search.journal.questions import registered
from search.journal.records import TrialRecord
from search.names import Artifact
from search.provenance import installed_packages, source_diff
from search.tracking.client import ensure_experiment, open_client
from search.tracking.questions import record_of
from search.tracking.results import Results
from search.tracking.runs import POINTS_PER_BLOCK
from search.tracking.sender import THE_SWEEP, Sender
from search.tracking.sweep_runs import SweepRuns
from search.tracking.view import VIEW_TAG, state_of
from vaegan_core.evaluation import Point

IMAGES_PER_BLOCK = 32


class MlflowWriter:
    """Brings MLflow up to date with the journal of the sweep in `directory`."""

    def __init__(self, sweep: Sweep, journal: Journal, directory: Path, uri: str) -> None:
        self.sweep = sweep
        self.journal = journal
        self.client = open_client(uri)
        self.experiment_id = ensure_experiment(self.client, sweep.config.tracking.experiment)
        self.runs = SweepRuns(self.client, self.experiment_id, sweep, journal)
        self.parent_id = self.runs.find_or_create_parent()
        self.sender = Sender(self.client, journal, self.parent_id)
        self.outbox = self.sender.outbox
        self.results = Results(sweep, self.sender, directory)

    def deliver(self) -> None:
        """Sends everything unsent; files and images last, because they may go to another server than the rest."""
        self._deliver_questions()
        self.runs.open(self.sender)
        while self._deliver_points():
            pass
        self.runs.close(self.sender)
        self.results.refresh()
        self._deliver_sweep_files()
        self._deliver_trial_files()
        while self._deliver_images():
            pass
        self.results.refresh_evaluations()

    def finish(self, stopped: str) -> None:
        """Sends everything, retries what was rejected, and ends the sweep's run.

        `stopped` says why the sweep ended early, "" if it did not.
        """
        self.sender.retry_refused()
        self.deliver()
        self.results.finish(stopped)
        self.runs.delete_duplicates(self.parent_id)
        self.client.set_terminated(self.parent_id, "KILLED" if stopped else "FINISHED")

    def _deliver_points(self) -> bool:
        """Sends one block of curve points; whether there may be more.

        Those of a trial without a run are passed over: they are sent when it gets one.
        """
        block = self.outbox.points_after(int(self.journal.meta(Meta.POINTS_CURSOR, "0")), POINTS_PER_BLOCK)
        by_trial: dict[int, list[tuple[int, Point]]] = defaultdict(list)
        for id, trial, point in block:
            by_trial[trial].append((id, point))
        for trial, points in by_trial.items():
            if self.sender.run_id(trial) is not None:
                self.sender.send_points(trial, points)
        if block:
            self.journal.set_meta(Meta.POINTS_CURSOR, str(block[-1][0]))
        return bool(block)

    def _deliver_questions(self) -> None:
        """The questions as they were registered, before any trial that answers them has a run."""
        questions = registered(self.journal)
        text = json.dumps(record_of(self.sweep, questions), indent=2)
        if not questions or text == self.journal.meta(Meta.QUESTIONS_SENT, ""):
            return
        send = partial(self.client.log_text, self.parent_id, text, Artifact.QUESTIONS)
        self.sender.offer(THE_SWEEP, Artifact.QUESTIONS, send)
        self.journal.set_meta(Meta.QUESTIONS_SENT, text)

    def _deliver_sweep_files(self) -> None:
        """Once: the sweep's YAML, the installed packages, how the code differs from its commit, and a view of it."""
        if self.sender.sweep_files_sent:
            return
        for name, text in (
            (Artifact.SWEEP, self.sweep.config.to_yaml()),
            (Artifact.ENVIRONMENT, installed_packages()),
            (Artifact.GIT_DIFF, source_diff()),
        ):
            if text:
                self.sender.offer(THE_SWEEP, name, partial(self.client.log_text, self.parent_id, text, name))
        key = f"{VIEW_TAG}{self.journal.meta(Meta.ID)}"
        show = partial(self.client.set_experiment_tag, self.experiment_id, key, state_of(self.sweep))
        self.sender.offer(THE_SWEEP, "view", show)
        self.sender.sweep_files_sent = True

    def _deliver_trial_files(self) -> None:
        for trial, version in self.outbox.changed_files():
            self.sender.offer(trial.number, "files", partial(self._send_files, trial))
            self.outbox.set_files_sent(trial.number, version)

    def _send_files(self, trial: TrialRecord) -> None:
        """Sends the trial's configuration, whose states it went on from, and its last error, if there are any."""
        self.client.log_text(str(trial.run_id), trial.config, Artifact.CONFIG)
        if self.journal.mutations(trial.number):
            text = lineage_yaml(lineage(self.sweep, self.journal, trial.number))
            self.client.log_text(str(trial.run_id), text, Artifact.LINEAGE)
        errors = [attempt.error for attempt in self.journal.all_attempts(trial.number) if attempt.error]
        for error in errors[-1:]:
            self.client.log_text(str(trial.run_id), error, Artifact.ERROR)

    def _deliver_images(self) -> bool:
        """Sends one block of image grids, as `_deliver_points` does; whether there may be more."""
        cursor = int(self.journal.meta(Meta.IMAGES_CURSOR, "0"))
        block = self.outbox.images_after(cursor, IMAGES_PER_BLOCK)
        for image in block:
            if self.sender.run_id(image.trial) is not None:
                self.sender.send_image(image)
            self.journal.set_meta(Meta.IMAGES_CURSOR, str(image.id))
        return bool(block)
