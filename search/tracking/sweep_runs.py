"""The MLflow runs of a sweep: its own, and one below it for every trial and replicate."""

from __future__ import annotations

import json
import time
from functools import partial
from itertools import pairwise

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from search.config.sweep import Sweep, flat
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.outbox import Outbox
from search.journal.records import TrialRecord
from search.names import FINAL_OUTCOMES, Kind, Outcome, Prefix, Tag
from search.provenance import DECIDED, moved
from search.tracking.description import run_name
from search.tracking.runs import (
    STATUS,
    NewRun,
    create_run,
    diagnosis_tags,
    final_values,
    is_active,
    mark_running,
    place_tags,
    search_all,
    sweep_runs_query,
    text_of,
)
from search.tracking.sender import Sender


def block_tags(trial: TrialRecord) -> dict[str, str]:
    """Where a trial that answers questions belongs; nothing for others."""
    place = trial.block
    if place is None:
        return {}
    across: dict[str, str] = {Tag.ACROSS: json.dumps(place.across)} if place.across else {}
    return {Tag.BLOCK: str(place.block), Tag.LEVELS: json.dumps(place.levels), **across}


class SweepRuns:
    """Makes, opens and closes the runs of a sweep. A run is looked for by its tags before it is made."""

    def __init__(self, client: MlflowClient, experiment_id: str, sweep: Sweep, journal: Journal) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.sweep = sweep
        self.journal = journal
        self.outbox = Outbox(journal)
        self.sent_anew = False
        """Whether the sweep's run was deleted, or the server is another one, so that everything is sent again."""

    # --- Made once each -----------------------------------------------------------------------------------------------

    def find_or_create_parent(self) -> str:
        """Id of the sweep's own run, with baselines and constants in it, running."""
        run_id = self.journal.meta(Meta.PARENT_RUN_ID, "")
        if run_id and not is_active(self.client, run_id):
            self.outbox.forget()
            self.sent_anew, run_id = True, ""
        run_id = run_id or self._find(Kind.SWEEP)
        if not run_id:
            objectives = ",".join(self.sweep.config.objectives)
            more = {**self._tags_of_sweep(), Tag.OBJECTIVES: objectives}
            run_id = self._create(NewRun(Kind.SWEEP, self.sweep.config.name, more=more))
        self.journal.set_meta(Meta.PARENT_RUN_ID, run_id)
        started = int(self.client.get_run(run_id).info.start_time)
        baselines: dict[str, float] = json.loads(self.journal.meta(Meta.BASELINES))
        metrics = [Metric(f"{Prefix.BASELINE}{key}", value, started, 0) for key, value in baselines.items()]
        constants = [Param(name, text_of(value)) for name, value in flat(self.sweep.config.base)]
        self.client.log_batch(run_id, metrics=metrics, params=constants)
        mark_running(self.client, run_id)
        return run_id

    def delete_duplicates(self, parent_id: str) -> None:
        """Deletes runs that a slow server made twice: those that the journal does not know, but for the replicates that
        a promotion trained."""
        if not self.journal.meta(Meta.MAYBE_DUPLICATES, ""):
            return
        known = {parent_id, *(trial.run_id for trial in self.journal.trials())}
        for kind in (Kind.SWEEP, Kind.TRIAL, Kind.REPLICATE):
            for run in list(search_all(self.client, self.experiment_id, self._query(kind))):
                if run.info.run_id not in known and Tag.SEED not in run.data.tags:
                    self.client.delete_run(run.info.run_id)
        self.journal.set_meta(Meta.MAYBE_DUPLICATES, "")

    def _query(self, kind: Kind, trial: int | None = None) -> str:
        return sweep_runs_query(self.journal.meta(Meta.ID), kind, trial)

    def _find(self, kind: Kind, trial: int | None = None) -> str:
        """Id of a run that was made but not noted down; "" without one."""
        runs = search_all(self.client, self.experiment_id, self._query(kind, trial))
        return next((str(run.info.run_id) for run in runs), "")

    def _create(self, new: NewRun) -> str:
        try:
            return create_run(self.client, self.experiment_id, new)
        except Exception:
            self.journal.set_meta(Meta.MAYBE_DUPLICATES, "yes")
            raise

    def _tags_of_sweep(self) -> dict[str, str]:
        features = self.journal.meta(Meta.FEATURES, "")
        return {
            Tag.SWEEP_ID: self.journal.meta(Meta.ID),
            Tag.SWEEP_NAME: self.sweep.config.name,
            Tag.FRAMES: self.journal.meta(Meta.FRAMES),
            **({Tag.FEATURES: features} if features else {}),
        }

    # --- Opened and closed with their trials --------------------------------------------------------------------------

    def open(self, sender: Sender) -> None:
        """Makes a run for every trial that has started or ended; runs of trials that continue count as running."""
        for trial in sender.outbox.out_of_step():
            if trial.run_id is None and (trial.outcome != Outcome.RUNNING or self.journal.environment(trial.number)):
                sender.offer(trial.number, "run", partial(self._open, trial, sender))
        for trial in sender.outbox.out_of_step():
            if trial.run_id is None:
                continue
            if not trial.synced:
                sender.send_params(trial)
            environment = self.journal.environment(trial.number)
            if trial.outcome == Outcome.RUNNING and environment:
                sender.offer(trial.number, "status", partial(mark_running, self.client, trial.run_id))
                tags = {Tag.OUTCOME: Outcome.RUNNING, **place_tags(environment), **self._attempt_tags(trial)}
                sender.send_tags(trial, tags)
                sender.outbox.set_synced(trial)

    def _open(self, trial: TrialRecord, sender: Sender) -> None:
        kind = Kind.TRIAL if trial.replicate_of is None else Kind.REPLICATE
        new = self._new_run(trial, kind, sender)
        run_id = self._made_for(trial, kind)
        if run_id:  # made before, maybe below a run that was deleted since
            self.client.set_tag(run_id, "mlflow.parentRunId", new.tags["mlflow.parentRunId"])
        else:
            run_id = self._create(new)
        sender.send_passed_over(trial.number, run_id)
        self.outbox.set_run_id(trial.number, run_id)

    def _made_for(self, trial: TrialRecord, kind: Kind) -> str:
        """Id of a run that was made but not noted down; "" without one. Runs of another trial of that number, which a
        journal knew that was lost with its machine, are deleted."""
        found = ""
        for run in list(search_all(self.client, self.experiment_id, self._query(kind, trial.number))):
            params = {name: text_of(value) for name, value in trial.params.items()}
            if run.data.params and run.data.params != params:
                self.client.delete_run(run.info.run_id)
            else:
                found = found or str(run.info.run_id)
        return found

    def _new_run(self, trial: TrialRecord, kind: Kind, sender: Sender) -> NewRun:
        original = None if trial.replicate_of is None else sender.run_id(trial.replicate_of)
        return NewRun(
            kind=kind,
            name=run_name(self.sweep, trial),
            environment=self.journal.environment(trial.number),
            parent=original or sender.parent_id,
            created=trial.created,
            more={
                **self._tags_of_sweep(),
                Tag.TRIAL: str(trial.number),
                Tag.ORIGIN: trial.origin,
                Tag.ON_FRONT: "false",
                **block_tags(trial),
            },
        )

    def close(self, sender: Sender) -> None:
        """Sends final values, outcome and status of every trial that has ended since the last time."""
        for trial in sender.outbox.out_of_step():
            if trial.run_id is None or trial.outcome == Outcome.RUNNING:
                continue
            if trial.outcome in FINAL_OUTCOMES:
                now = int((trial.ended or time.time()) * 1000)
                evaluations, objectives = self.journal.evaluations(trial.number), self.sweep.config.objectives
                times = self.journal.evaluation_times(trial.number)
                sender.send_metrics(trial, final_values(evaluations, objectives, trial.step, now, times))
            sender.send_tags(trial, self._final_tags(trial))
            ended_at = int((trial.ended or time.time()) * 1000)
            status = STATUS[trial.outcome]
            sender.offer(trial.number, "status", partial(self.client.set_terminated, trial.run_id, status, ended_at))
            sender.outbox.set_synced(trial)

    def _final_tags(self, trial: TrialRecord) -> dict[str, str]:
        tags = {Tag.OUTCOME: trial.outcome, Tag.REASON: trial.reason, **self._attempt_tags(trial)}
        rung = self.journal.last_rung(trial.number)
        if rung is not None:
            tags[Tag.RUNG] = str(rung)
        tags |= diagnosis_tags(self.journal.diagnoses(trial.number))
        if trial.outcome == Outcome.COMPLETED and not trial.apart:
            feasible = self.sweep.feasible(self.journal.last_metrics(trial.number))
            tags[Tag.FEASIBLE] = str(feasible).lower()
        return tags

    def _attempt_tags(self, trial: TrialRecord) -> dict[str, str]:
        """How often the trial was begun, from which steps, where it moved to, and what a later attempt computed
        differently; nothing for a single attempt."""
        attempts = self.journal.all_attempts(trial.number)
        if len(attempts) < 2:
            return {}
        tags: dict[str, str] = {
            Tag.ATTEMPTS: str(len(attempts)),
            Tag.RESUMED: ", ".join(str(attempt.from_step) for attempt in attempts[1:]),
        }
        if adopted := self.journal.mutations(trial.number):
            tags[Tag.ADOPTED] = "; ".join(f"from trial {each.donor} at step {each.step}" for each in adopted)
        environments = [self.journal.environment(trial.number, attempt.attempt) for attempt in attempts]
        begun = [
            (a.from_step, environment) for a, environment in zip(attempts, environments, strict=True) if environment
        ]
        moves = [(step, moved(before, now)) for (_, before), (step, now) in pairwise(begun)]
        if any(move for _, move in moves):
            tags[Tag.MOVED] = "; ".join(f"from step {step}: {move}" for step, move in moves if move)
            tags |= {Tag.DEVICE: begun[-1][1]["device"], Tag.DECIDED: begun[-1][1].get(DECIDED, "{}")}
        differing = [attempt for attempt in attempts if attempt.mismatches]
        if differing:
            total = sum(attempt.mismatches for attempt in differing)
            tags[Tag.MISMATCH] = f"{total} points; the first: {differing[0].mismatch}"
        return tags
