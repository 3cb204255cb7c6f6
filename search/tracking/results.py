"""What a sweep found, brought to MLflow: its description, its front, what fresh seeds made of the best, weights."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import Metric

from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.records import TrialRecord
from search.names import FINAL_OUTCOMES, GPU_HOURS, TRAINING_VIEW, TRIAL_HOURS, Artifact, Prefix, Tag
from search.standings.blocks import standing
from search.standings.standings import Standings, standings
from search.storage.place import Place
from search.tracking.description import RUNNING, describe
from search.tracking.evaluations import Evaluations, Row, collect, to_parquet
from search.tracking.sender import THE_SWEEP, Sender
from search.tracking.view import page_of_view

SUMMARY_SECONDS = 30.0
"""Shortest time between two summaries, or two tables, of a running sweep."""
SUMMARY_SHARE = 0.05
"""Largest share of the time that summaries may take, and that tables may."""


class Pace:
    """Does something at most every SUMMARY_SECONDS, and in at most SUMMARY_SHARE of the time."""

    def __init__(self) -> None:
        self._next = 0.0

    def now_and_then(self, act: Callable[[], object]) -> None:
        begun = time.monotonic()
        if begun < self._next:
            return
        act()
        ended = time.monotonic()
        self._next = ended + max(SUMMARY_SECONDS, (ended - begun) / SUMMARY_SHARE)


class Results:
    """The results of the sweep in `directory`; only what has changed since it was last sent is sent."""

    def __init__(self, sweep: Sweep, sender: Sender, directory: Path) -> None:
        self.sweep = sweep
        self.sender = sender
        self.journal = sender.journal
        self.files = Place.of(directory, self.journal).files()
        self._summaries, self._tables = Pace(), Pace()
        self._experiment_id = str(sender.client.get_run(sender.parent_id).info.experiment_id)

    def refresh(self) -> None:
        """A summary of the running sweep, unless the last one was a moment ago."""
        self._summaries.now_and_then(partial(self._summarize, RUNNING))

    def refresh_evaluations(self) -> None:
        """The table of all evaluations, unless the last one was a moment ago."""
        self._tables.now_and_then(self._send_evaluations)

    def finish(self, stopped: str) -> None:
        """The last summary, confirmations, table and weights; `stopped` says why it ended early, "" if it did not."""
        current = self._summarize(f"stopped early: {stopped}" if stopped else "finished")
        self._send_confirmations(current)
        self._send_evaluations()
        self._send_weights(current)

    def _summarize(self, state: str) -> Standings:
        """Sends the sweep's description and values, and which trials are on the front."""
        current = standings(self.sweep, self.journal)
        trials = self.journal.trials()
        asked = standing(self.sweep, self.journal)
        text = describe(self.sweep, current, trials, state, self._links(current, state), asked)
        self._tag_front(current.front)
        if self.journal.meta(Meta.SUMMARY_SENT, "") != text:
            self._send_summary(current, trials, text)
            self.journal.set_meta(Meta.SUMMARY_SENT, text)
        return current

    def _links(self, current: Standings, state: str) -> str:
        """What leads on from the sweep's page, in Markdown: to its trials, and once it has ended to its report."""
        runs = f"#/experiments/{self._experiment_id}/runs"
        links = [f"[trial {t.number}]({runs}/{t.run_id}{TRAINING_VIEW}), the best one" for t in current.best[:1]]
        links.append(f"[all trials]({page_of_view(self._experiment_id, self.journal.meta(Meta.ID))}), best first")
        if state != RUNNING:
            links.insert(0, f"the [report]({runs}/{self.sender.parent_id}/artifacts/{Artifact.REPORT}{TRAINING_VIEW})")
        return f"Open {'; '.join(links)}."

    def _send_summary(self, current: Standings, trials: list[TrialRecord], text: str) -> None:
        metrics = {"sweep/hypervolume": current.hypervolume, "sweep/trials": float(len(trials)), **self._spent()}
        if current.best:
            best = current.metrics[current.best[0].number]
            metrics |= {f"{Prefix.BEST}{key}": best[key] for key in self.sweep.config.objectives}
        ended = sum(trial.outcome in FINAL_OUTCOMES for trial in trials)
        now = int(max((trial.ended or trial.created for trial in trials), default=time.time()) * 1000)
        points = [Metric(key, value, now, ended) for key, value in metrics.items()]
        client, parent_id = self.sender.client, self.sender.parent_id
        self.sender.offer(THE_SWEEP, "results", partial(client.log_batch, parent_id, metrics=points))
        note = partial(client.set_tag, parent_id, "mlflow.note.content", text)
        self.sender.offer(THE_SWEEP, "description", note)

    def _spent(self) -> dict[str, float]:
        """Hours of all attempts at trials, and of GPUs."""
        share = self.sweep.config.resources.gpu
        gpus = float(self.journal.meta(Meta.GPU_SHARE, "0") or 0) if share == "auto" else float(share)
        hours = self.journal.running_seconds() / 3600
        return {TRIAL_HOURS: hours, GPU_HOURS: self.journal.gpu_seconds(gpus) / 3600}

    def _send_evaluations(self) -> None:
        """Replaces the table of all evaluations, if there are more of them now."""
        count = str(self.journal.num_evaluations())
        if count == self.journal.meta(Meta.EVALUATIONS_SENT, "0"):
            return
        client, parent_id = self.sender.client, self.sender.parent_id
        with TemporaryDirectory() as folder:
            path = Path(folder) / Artifact.EVALUATIONS
            path.write_bytes(to_parquet(evaluations_in(self.journal)))
            send = partial(client.log_artifact, parent_id, str(path))
            self.sender.offer(THE_SWEEP, Artifact.EVALUATIONS, send)
        self.journal.set_meta(Meta.EVALUATIONS_SENT, count)

    def _tag_front(self, front: set[int]) -> None:
        sent = set(json.loads(self.journal.meta(Meta.ON_FRONT_SENT, "[]")))
        for number in sorted(sent ^ front):
            trial = self.journal.trial(number)
            if trial.run_id is None:
                continue
            self.sender.send_tags(trial, {Tag.ON_FRONT: str(number in front).lower()})
            sent ^= {number}
            self.journal.set_meta(Meta.ON_FRONT_SENT, json.dumps(sorted(sent)))

    def _send_confirmations(self, current: Standings) -> None:
        """`confirmed/…` and `confirmed_half_width/…` of each objective, for trials that ran again with fresh seeds."""
        for number, confirmation in current.confirmations.items():
            trial = self.journal.trial(number)
            if self._confirmed_by_promotion(trial, confirmation.ended):
                continue
            last = max(t.ended or t.created for t in self.journal.trials() if t.replicate_of == number)
            metrics = {f"{Prefix.CONFIRMED}{key}": value for key, value in confirmation.mean.items()}
            metrics |= {f"{Prefix.HALF_WIDTH}{key}": value for key, value in confirmation.half_width.items()}
            points = [Metric(key, value, int(last * 1000), confirmation.ended) for key, value in metrics.items()]
            self.sender.send_metrics(trial, points)
            feasible = str(number not in current.infeasible).lower()
            self.sender.send_tags(trial, {Tag.CONFIRMED: confirmation.seeds, Tag.FEASIBLE: feasible})

    def _confirmed_by_promotion(self, trial: TrialRecord, seeds: int) -> bool:
        """Whether `vaegan promote` has confirmed the trial with as many seeds, or more, which the journal cannot know.

        The same seeds give the same means, and those of more seeds are not to be replaced.
        """
        if trial.run_id is None:
            return False
        tags = self.sender.client.get_run(trial.run_id).data.tags
        return int(tags.get(Tag.PROMOTION_SEEDS, "0")) >= seeds

    def _send_weights(self, current: Standings) -> None:
        """Uploads the weights of the best trials; tags every trial that has weights with their path and hash."""
        sent: dict[str, str] = json.loads(self.journal.meta(Meta.MODELS_SENT, "{}"))
        kept = [(trial, model) for trial in current.best if (model := self.journal.model(trial.number))]
        for place, (trial, model) in enumerate(kept):
            uploads = place < self.sweep.config.tracking.keep_models
            state = f"{model.sha256} uploaded" if uploads else model.sha256
            if sent.get(str(trial.number)) == state:
                continue
            tags: dict[str, str] = {Tag.MODEL_PATH: self.files.address(model.key), Tag.MODEL_SHA: model.sha256}
            self.sender.send_tags(trial, tags)
            if uploads:
                with self.files.reading(model.key, model.sha256) as path:
                    upload = partial(self.sender.client.log_artifact, str(trial.run_id), str(path))
                    self.sender.offer(trial.number, "weights", upload)
            sent[str(trial.number)] = state
            self.journal.set_meta(Meta.MODELS_SENT, json.dumps(sent))


def evaluations_in(journal: Journal) -> Evaluations:
    """Every evaluation of a journal's trials and replicates, with its time and host."""
    replicates = {trial.number: trial.replicate_of for trial in journal.trials()}
    beginnings = journal.beginnings()

    def rows() -> Iterator[Row]:
        last: tuple[int, float] = (-1, 0.0)
        for trial, step, ended, metrics in journal.every_evaluation():
            began, host = max((each for each in beginnings.get(trial, []) if each[0] <= ended), default=(None, ""))
            starts = [time for time in (began, last[1] if last[0] == trial else None) if time is not None]
            yield Row(trial, step, ended - max(starts) if starts else None, host, replicates[trial], metrics)
            last = (trial, ended)

    return collect(rows())
