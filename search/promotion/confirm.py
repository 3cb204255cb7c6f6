"""A trial confirmed on fresh seeds: the replicates that MLflow has, and those that are missing, trained here.

A replicate trained here is a run as a sweep's own: below its trial, with its parameters, and with curves, images and
final values. The journal does not know it. So that the two cannot get into each other's way, it has the number of
the trial it repeats in place of one of its own, and its seed in a tag, by which the driver leaves it alone; and the
driver writes its own confirmation over that of a promotion only where it has more seeds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from search.config.sweep_config import Constraint
from search.lease import lease
from search.names import FINAL_OUTCOMES, Artifact, Kind, Outcome, Prefix, Tag
from search.paths import CHECKPOINT_FILE, RUNS_DIRECTORY
from search.promotion.choose import Choice
from search.promotion.measure import Bench
from search.provenance import describe_environment
from search.standings.candidates import FIRST_FRESH_SEED, Confirmation
from search.tracking.reader import SweepRun, TrialRun, seed_of
from search.tracking.runs import (
    STATUS,
    NewRun,
    create_run,
    diagnosis_tags,
    final_values,
    is_active,
    log_evaluation,
    mark_running,
    search_all,
    sweep_runs_query,
)
from search.tracking.single_run import RUN_ID_FILE, RunLog
from vaegan_core.config.trial import TrialConfig
from vaegan_core.evaluation import Evaluation
from vaegan_core.metrics.frame_features import ensure_features
from vaegan_core.tensor_files import write_atomically
from vaegan_core.training.trainer import Trainer

PROMOTIONS = "promotions"
"""Below runs/: a directory for every trial that is being confirmed here."""
TAKEN_OVER = (Tag.SWEEP_ID, Tag.SWEEP_NAME, Tag.TRIAL, Tag.FRAMES)

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Replicate:
    """A trial trained again on a fresh seed, to its end."""

    seed: int
    completed: bool
    metrics: Mapping[str, float]


def find_replicates(client: MlflowClient, sweep: SweepRun, trial: TrialRun) -> list[Replicate]:
    """The trial's replicates that have ended, one for each seed, whoever trained them."""
    query = sweep_runs_query(trial.tags[Tag.SWEEP_ID], Kind.REPLICATE)
    below = f"{query} and tags.`mlflow.parentRunId` = '{trial.run_id}'"
    found: dict[int, Replicate] = {}
    for run in search_all(client, sweep.experiment_id, below):
        outcome = run.data.tags.get(Tag.OUTCOME)
        if outcome not in FINAL_OUTCOMES or (outcome == Outcome.FAILED and Tag.SEED in run.data.tags):
            continue  # one that failed here is tried again
        seed = seed_of(client, run)
        finals = {
            key.removeprefix(Prefix.FINAL): value
            for key, value in run.data.metrics.items()
            if key.startswith(Prefix.FINAL)
        }
        found.setdefault(seed, Replicate(seed, outcome == Outcome.COMPLETED, finals))
    return [found[seed] for seed in sorted(found)]


def missing_seeds(replicates: Sequence[Replicate], wanted: int, base_seed: int) -> list[int]:
    """The fresh seeds, of those that every trial of the sweep gets, with which `wanted` would be reached."""
    have, seed = {each.seed for each in replicates}, FIRST_FRESH_SEED + base_seed
    missing: list[int] = []
    while len(have) + len(missing) < wanted:
        if seed not in have:
            missing.append(seed)
        seed += 1
    return missing


def write_confirmation(
    client: MlflowClient,
    sweep: SweepRun,
    trial: TrialRun,
    replicates: Sequence[Replicate],
    constraints: Sequence[Constraint],
) -> None:
    """Writes to the trial's run what its replicates came to, as the sweep itself does."""
    completed = [each.metrics for each in replicates if each.completed]
    confirmation = Confirmation.of(completed, len(replicates), sweep.objectives)
    values = {f"{Prefix.CONFIRMED}{key}": value for key, value in confirmation.mean.items()}
    values |= {f"{Prefix.HALF_WIDTH}{key}": value for key, value in confirmation.half_width.items()}
    now = int(time.time() * 1000)
    client.log_batch(trial.run_id, [Metric(key, value, now, confirmation.ended) for key, value in values.items()])
    mean = {
        each.metric: statistics.fmean(metrics[each.metric] for metrics in completed)
        for each in constraints
        if completed and all(each.metric in metrics for metrics in completed)
    }
    holds = trial.feasible and (not completed or all(each.violation(mean) <= 0 for each in constraints))
    client.set_tag(trial.run_id, Tag.PROMOTION_SEEDS, str(confirmation.ended))
    client.set_tag(trial.run_id, Tag.FEASIBLE, str(holds).lower())
    client.set_tag(trial.run_id, Tag.CONFIRMED, confirmation.seeds)


# --- One replicate, trained here --------------------------------------------------------------------------------------


def train_replicate(
    client: MlflowClient, choice: Choice, bench: Bench, seed: int, progress: Progress, say: Callable[[str], None]
) -> None:
    """Trains the trial with another seed, from its checkpoint where there is one, as a run below the trial's."""
    directory = RUNS_DIRECTORY.absolute() / PROMOTIONS / choice.trial.run_id / str(seed)
    directory.mkdir(parents=True, exist_ok=True)
    config = bench.config.model_copy(update={"train": bench.config.train.model_copy(update={"seed": seed})})
    with lease(directory, what="a confirmation"):
        trainer = Trainer(config, bench.frame_set, ensure_features(bench.frame_set))
        run_id = _open_run(client, choice, config, directory)
        log, recorded = RunLog(say), _Recorded(client, run_id, choice.sweep.objectives)
        log.offer(partial(client.log_text, run_id, config.to_yaml(), Artifact.CONFIG))

        def report(evaluation: Evaluation) -> None:
            recorded.add(evaluation)
            log.offer(partial(log_evaluation, client, run_id, evaluation))

        try:
            trainer.run(report, checkpoint=directory / CHECKPOINT_FILE, progress=progress, since=0)
        except KeyboardInterrupt:
            recorded.outcome = Outcome.INTERRUPTED
            raise
        finally:
            log.offer(recorded.end)
    if not log.all_sent:
        raise ValueError("MLflow does not have all of a replicate, so it confirms nothing yet; run the command again")
    (directory / CHECKPOINT_FILE).unlink(missing_ok=True)


def _open_run(client: MlflowClient, choice: Choice, config: TrialConfig, directory: Path) -> str:
    """Id of the replicate's run: the one begun before in this directory, or a new one."""
    sweep, trial, seed = choice.sweep, choice.trial, config.train.seed
    note = directory / RUN_ID_FILE
    if note.exists() and is_active(client, note.read_text()):
        run_id = note.read_text()
        mark_running(client, run_id)
        return run_id
    new = NewRun(
        kind=Kind.REPLICATE,
        name=f"trial {trial.number} again, fresh seed {seed}",
        environment=describe_environment(config),
        parent=trial.run_id,
        more={
            **{str(tag): trial.tags[tag] for tag in TAKEN_OVER if tag in trial.tags},
            Tag.SEED: str(seed),
            Tag.ORIGIN: f"confirms trial {trial.number}",
            Tag.ON_FRONT: "false",
        },
    )
    run_id = create_run(client, sweep.experiment_id, new)
    client.log_batch(run_id, params=[Param(key, value) for key, value in trial.params.items()])
    write_atomically(note, run_id.encode())
    return run_id


@dataclass
class _Recorded:
    """What a replicate's run gets at its end."""

    client: MlflowClient
    run_id: str
    objectives: Sequence[str]
    outcome: str = Outcome.FAILED
    evaluations: dict[int, Mapping[str, float]] = field(default_factory=dict)
    tags: dict[str, Any] = field(default_factory=dict)

    def add(self, evaluation: Evaluation) -> None:
        if evaluation.outcome == "diverged":
            self.tags[Tag.REASON] = evaluation.reason
        else:
            self.evaluations[evaluation.step] = evaluation.metrics
            self.tags |= diagnosis_tags(evaluation.diagnoses)
        if evaluation.outcome != "running":
            self.outcome = evaluation.outcome

    def end(self) -> None:
        """Final and best values, outcome and status; sent again, it changes nothing that is read."""
        now, last = int(time.time() * 1000), max(self.evaluations, default=0)
        if self.outcome in FINAL_OUTCOMES:
            self.client.log_batch(self.run_id, metrics=final_values(self.evaluations, self.objectives, last, now))
        for key, value in {**self.tags, Tag.OUTCOME: self.outcome}.items():
            self.client.set_tag(self.run_id, key, value)
        self.client.set_terminated(self.run_id, STATUS[self.outcome])
