"""`vaegan rerun`: trains a run again from MLflow alone, without Ray, and compares every number with the original's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric

from search.json_text import json_text
from search.local.compare import Comparison, compare
from search.local.differences import Change, verdict
from search.local.plan import Plan
from search.local.replay import Part
from search.local.seeds import FreshSeeds, Spread, read_seeds
from search.names import STEP, UNREPEATABLE_PREFIXES, Artifact, Outcome, Prefix, Tag
from search.terminal import counted
from search.tracking.errors import UNREADABLE, explain
from search.tracking.runs import log_evaluation
from search.tracking.single_run import RunLog, end_run, open_rerun
from vaegan_core.evaluation import METRICS, Evaluation
from vaegan_core.tensor_files import load_tensors
from vaegan_core.training.nonfinite import NonFinite, stopping_at_nonfinite
from vaegan_core.training.trainer import Trainer

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Row:
    """A validation metric of both trainings, and of fresh seeds."""

    key: str
    then: float | None
    now: float | None
    seeds: Spread | None
    """None: fewer than two fresh seeds came as far."""

    @property
    def beyond(self) -> bool | None:
        """Whether the new value lies outside of what a fresh seed of the original would give; None: cannot be told."""
        return None if self.seeds is None or self.now is None else self.seeds.beyond(self.now)


@dataclass(frozen=True)
class Result:
    """What a rerun came to."""

    original: str
    run_id: str
    """Its own MLflow run."""
    variant: str
    outcome: str
    reason: str
    """Why it ended early, or where the first value that is not finite appeared."""
    reached: int
    """Its last step."""
    step: int
    """Step of the validation that `rows` hold; 0 without one."""
    comparison: Comparison
    ended_alike: bool
    """Whether both diverged for the same reason, or neither did, as far as the rerun went."""
    rows: tuple[Row, ...]
    seeds: FreshSeeds
    changes: tuple[Change, ...]
    seed: int
    """The original's."""
    nonfinite: bool
    """Whether it was stopped at a value that is not finite."""

    @property
    def comparable(self) -> bool:
        """Whether it is the same training again, and there is something to compare."""
        diverged = self.outcome == Outcome.DIVERGED and not self.nonfinite  # a closer look names another reason
        return not self.variant and (self.comparison.compared > 0 or diverged)

    @property
    def identical(self) -> bool:
        """Whether every number that both have is the same."""
        return self.comparable and self.ended_alike and self.comparison.first is None

    @property
    def interrupted(self) -> bool:
        """Whether a person ended it."""
        return self.outcome == Outcome.INTERRUPTED

    @property
    def succeeded(self) -> bool:
        """Whether a variant was trained, or the same again is identical or has nothing to be compared with."""
        if self.nonfinite:
            return False
        return self.identical or not self.comparable

    def in_words(self) -> str:
        """The verdict, in a sentence or two."""
        compared = self.comparison
        if self.variant:
            return f"Trained the variant {self.variant} to step {self.reached}."
        if not self.comparable:
            return f"Trained to step {self.reached}; the original has no curve there to compare with."
        if self.identical and not compared.compared:
            return "Identical: it diverged as the original did, before the first point of a curve."
        if self.identical:
            return (
                f"Identical: all {compared.compared} curve points to step {compared.until} are the same, bit for bit."
            )
        if compared.first is None:
            return f"Different: all {compared.compared} curve points are the same, but it did not end as the original."
        return (
            f"Different: {compared.differing} of {compared.compared} curve points; first at "
            f"{compared.first.in_words()}. (A point is the mean over the steps since the one before.)"
        )

    def explanations(self) -> Iterator[str]:
        """What the values mean beside those of fresh seeds, and what was not compared."""
        if others := self.comparison.others if not self.variant else ():
            yield f"Not compared, because only one of them has such curves, of another version: {', '.join(others)}."
        if self.identical or not self.rows:
            return
        told = [row for row in self.rows if row.beyond is not None]
        if not told:
            yield (
                "Whether that is more than fresh seeds differ by cannot be told: the original has "
                f"{counted(self.seeds.seeds, 'fresh seed') if self.seeds.seeds else 'none'}, and it takes two. "
                f"{'These train them' if not self.seeds.seeds else 'This trains another'}:"
            )
            for seed in (1, 2)[self.seeds.seeds :]:
                yield f"  vaegan rerun {self.original} --set train.seed={self.seed + seed}"
            return
        beyond = [row.key for row in told if row.beyond]
        seeds = counted(self.seeds.seeds, "fresh seed")
        words = f"; beyond: {', '.join(beyond)}" if beyond else ""
        yield (
            f"{len(told) - len(beyond)} of {len(told)} values lie where one more seed of the original would in 95 % of "
            f"cases, by {seeds}{words}."
        )
        if self.seeds.diverged:
            yield f"{counted(self.seeds.diverged, 'fresh seed')} diverged and do not count."

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        rows = [
            asdict(row) | {"half_width": row.seeds.half_width if row.seeds else None, "beyond": row.beyond}
            for row in self.rows
        ]
        return asdict(self) | {"identical": self.identical, "rows": rows, "verdict": verdict(self.changes)}


def rerun(client: MlflowClient, plan: Plan, progress: Progress, say: Callable[[str], None]) -> Result:
    """Trains what the plan says and compares it with the original. Curves and verdict are kept in a run of its own
    below that one; after Ctrl-C too, which is the outcome `interrupted`."""
    original = plan.run.info.run_id
    run_id = open_rerun(client, original, plan.config, plan.variant, plan.params)
    log = RunLog(say)
    training = _Training(plan, partial(_log_points, client, run_id, log), progress)
    outcome: str = Outcome.INTERRUPTED
    try:
        reason = training.run()
        outcome = training.outcome
        result = _compared(client, plan, training, run_id, reason, say)
        for send in _results(client, run_id, result, training.metrics):
            log.offer(send)
    finally:
        log.offer(partial(end_run, client, run_id, outcome))
    if not log.all_sent:
        say("MLflow could not be written to, so the rerun's run does not have all of this.")
    return result


def _log_points(client: MlflowClient, run_id: str, log: RunLog, evaluation: Evaluation) -> None:
    log.offer(partial(log_evaluation, client, run_id, evaluation))


class _Training:
    """The parts of a plan, trained one after the other."""

    def __init__(self, plan: Plan, send: Callable[[Evaluation], None], progress: Progress) -> None:
        self.plan = plan
        self.send = send
        self.progress = progress
        self.points: dict[tuple[str, int], float] = {}
        """Every repeatable curve point of the run itself."""
        self.validations: dict[int, Mapping[str, float]] = {}
        """By step, of the run itself."""
        self.reached = plan.kept.step if plan.kept and plan.kept.whole else 0
        self.outcome: str = Outcome.RUNNING
        self._done = 0
        self._cut_off = False
        self.nonfinite = False
        self._directory = Path()

    @property
    def complete(self) -> int:
        """The last step with all its points: one that was cut off may have some of them."""
        steps = sorted({step for _, step in self.points})
        if self._cut_off and steps and self.plan.config.evaluates(steps[-1]) and steps[-1] not in self.validations:
            steps.pop()
        return steps[-1] if steps else 0

    @property
    def metrics(self) -> tuple[int, Mapping[str, float]]:
        """Step and values of the last validation; step 0 without one."""
        step = max(self.validations, default=0)
        return step, self.validations.get(step, {})

    def run(self) -> str:
        """Trains; returns why that ended early, "" if it did not."""
        with TemporaryDirectory() as directory:
            self._directory = Path(directory)
            for part in self.plan.parts:
                reason = self._train(part)
                if reason:
                    return reason
        return ""

    def _train(self, part: Part) -> str:
        trainer = self._begin(part)
        begun, reports = trainer.step, []

        def report(evaluation: Evaluation) -> None:
            reports.append(evaluation)
            if part.own:
                self._receive(evaluation)

        def advance(step: int) -> None:
            self.progress(self._done + step - begun)

        looking: AbstractContextManager[None] = nullcontext()
        if self.plan.debug and part.own:
            looking = stopping_at_nonfinite(trainer)
        reason = ""
        try:
            with looking:
                trainer.run(
                    report,
                    checkpoint=None if part.own else self._state(part.trial, part.until),
                    progress=advance,
                    until=part.until,
                )
        except KeyboardInterrupt:
            self.outcome, self._cut_off = Outcome.INTERRUPTED, True
            reason = f"interrupted at step {trainer.step}"
        except NonFinite as found:
            self.outcome, self._cut_off = Outcome.DIVERGED, True
            reason, self.nonfinite = str(found), True
        finally:
            self._done += trainer.step - begun
            if part.own:
                self.reached = trainer.step
                self._receive(Evaluation(trainer.step, "running", points=trainer.curves.take_points()))
        diverged = next((each.reason for each in reports if each.outcome == "diverged"), "")
        if diverged and not part.own:
            raise ValueError(
                f"trial {part.trial}, whose state is needed, diverges here ({diverged}), as it did not then"
            )
        return reason or diverged

    def _begin(self, part: Part) -> Trainer:
        trainer = Trainer(part.config, self.plan.frame_set, self.plan.features)
        kept = self.plan.kept
        if part.start is not None:
            trainer.load(self._state(*part.start), of_another=True)
        elif kept and kept.whole:
            trainer.load(kept.path, of_another=True)
        elif kept:
            trainer.start_from(load_tensors(kept.path)[0])
        return trainer

    def _state(self, trial: int, step: int) -> Path:
        return self._directory / f"{trial}-at-{step}.safetensors"

    def _receive(self, evaluation: Evaluation) -> None:
        repeatable = (p for p in evaluation.points if not p.key.startswith(UNREPEATABLE_PREFIXES))
        self.points |= {(p.key, p.step): p.value for p in repeatable}
        if evaluation.metrics:
            self.validations[evaluation.step] = evaluation.metrics
        if evaluation.outcome != "running":
            self.outcome = evaluation.outcome
        if evaluation.points:
            self.send(evaluation)


def _compared(
    client: MlflowClient, plan: Plan, training: _Training, run_id: str, reason: str, say: Callable[[str], None]
) -> Result:
    validated = {step for key, step in plan.before if key in METRICS}
    step = max(validated & training.validations.keys(), default=0)
    now = training.validations.get(step, {})
    keys = [key for key in METRICS if key in now or (key, step) in plan.before] if step else []
    seeds = FreshSeeds({}, seeds=0, diverged=0)
    try:
        seeds = read_seeds(client, plan.run, keys, step, but_not=run_id)
    except UNREADABLE as error:
        say(f"Fresh seeds cannot be read from MLflow. {explain(error)}")
    rows = tuple(Row(key, plan.before.get((key, step)), now.get(key), seeds.of(key)) for key in keys)
    return Result(
        original=plan.run.info.run_id,
        run_id=run_id,
        variant=plan.variant,
        outcome=training.outcome,
        reason=reason,
        reached=training.reached,
        step=step,
        comparison=compare(plan.before, training.points, training.complete),
        ended_alike=_ended_alike(plan, training, reason),
        rows=rows,
        seeds=seeds,
        changes=plan.changes,
        seed=plan.seed,
        nonfinite=training.nonfinite,
    )


def _ended_alike(plan: Plan, training: _Training, reason: str) -> bool:
    tags = plan.run.data.tags
    then, now = tags.get(Tag.OUTCOME) == Outcome.DIVERGED, training.outcome == Outcome.DIVERGED
    if then and now:
        return plan.debug or reason == tags.get(Tag.REASON)  # a closer look names something else
    return not now and (not then or training.reached < plan.until or plan.until < plan.last)


def _results(
    client: MlflowClient, run_id: str, result: Result, last: tuple[int, Mapping[str, float]]
) -> Iterator[Callable[[], object]]:
    """What to send to the rerun's own run."""
    step, metrics = last
    tags = {Tag.REASON: result.reason} if result.reason else {}
    if result.comparable:
        whole = result.outcome != Outcome.INTERRUPTED
        tags[Tag.IDENTICAL] = f"{str(result.identical).lower()}{'' if whole else f' to step {result.comparison.until}'}"
        if result.comparison.first:
            tags[Tag.FIRST_DIFFERENCE] = result.comparison.first.in_words()
    for key, value in tags.items():
        yield partial(client.set_tag, run_id, key, value)
    if metrics:
        now = int(time.time() * 1000)
        final = {STEP: float(step), **metrics}
        points = [Metric(f"{Prefix.FINAL}{key}", value, now, step) for key, value in final.items()]
        yield partial(client.log_batch, run_id, metrics=points)
    yield partial(client.log_text, run_id, json_text(result.to_json(), indent=2), Artifact.COMPARISON)
