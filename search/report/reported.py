"""A sweep as a report has it: its runs, its evaluations, what it was to do, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from mlflow import MlflowClient

from search.config.sweep import Sweep
from search.names import Outcome, Tag
from search.report.answered import Answered, answered, read_questions, without_blocks
from search.report.findings import Findings, find
from search.standings.scales import Scales
from search.tracking.evaluations import Evaluations, read_evaluations
from search.tracking.reader import SweepRun, TrialRun, find_sweep, read_plan, require_sweep
from vaegan_core.metrics.diagnoses import (
    DISCRIMINATOR_SATURATED,
    FEATURE_AMPLIFICATION,
    KL_EXPLOSION,
    LATENT_DRIFT,
    MODE_COLLAPSE,
    POSTERIOR_COLLAPSE,
    PRIOR_SAMPLES_IGNORED,
)

DIAGNOSES = {
    KL_EXPLOSION: "the KL keeps growing, beyond half a nat per latent dimension and beyond its target",
    DISCRIMINATOR_SATURATED: "D tells real frames from reconstructions or from prior samples almost without error",
    PRIOR_SAMPLES_IGNORED: "prior samples stay bad while reconstructions are good; they hardly reach the decoder",
    FEATURE_AMPLIFICATION: "the same pixel error counts three times as much in the feature loss as it once did",
    LATENT_DRIFT: "the latents lie away from the prior: their mean is off the origin, or their radius too large",
    POSTERIOR_COLLAPSE: "the latents carry next to nothing of the image",
    MODE_COLLAPSE: "prior samples look alike, much more so than real frames",
}


@dataclass(frozen=True)
class Reported:
    """A sweep with what is said of it."""

    sweep: SweepRun
    evaluations: Evaluations
    plan: Sweep | None
    """What its sweep.yaml says; None where this version cannot read it."""
    findings: Findings
    answered: tuple[Answered, ...] = ()
    """Its questions. The trials of their blocks are there alone, and not among those of `sweep`."""

    @cached_property
    def ordered(self) -> list[TrialRun]:
        """Completed trials by rank, then the others, those that passed most rungs first."""
        rest = [trial for trial in self.sweep.trials if trial.outcome != Outcome.COMPLETED]
        rest.sort(key=lambda trial: int(trial.tags.get(Tag.RUNG, -1)), reverse=True)
        return self.sweep.ranked + rest

    @property
    def asks_only(self) -> bool:
        """Whether all its trials answer questions."""
        return self.plan is not None and self.plan.num_trials == 0 and not self.sweep.trials

    @property
    def scales(self) -> Scales | None:
        """None before the sweep has measured its baselines."""
        try:
            return self.sweep.scales
        except (IndexError, ValueError):
            return None


def read_reported(client: MlflowClient, name: str) -> Reported:
    """The newest sweep called `name`. Raises ValueError if there is none."""
    whole = find_sweep(client, name)
    sweep = without_blocks(whole)
    evaluations, plan = read_evaluations(client, whole), read_plan(client, whole)
    questions = read_questions(client, whole)
    over = bool(questions) and client.get_run(whole.run_id).info.status == "FINISHED"
    answers = answered(questions, whole, evaluations, plan, over=over)
    return Reported(sweep, evaluations, plan, find(sweep, evaluations, plan), answers)


def read_all(client: MlflowClient, names: Sequence[str]) -> list[Reported]:
    """The newest sweep of each name, each once. Raises ValueError naming all that there are none of."""
    missing = []
    for name in dict.fromkeys(names):
        try:
            require_sweep(client, name)
        except ValueError as error:
            missing.append(str(error))
    if missing:
        raise ValueError("\n".join(missing))
    return [read_reported(client, name) for name in dict.fromkeys(names)]


def diagnosed(trial: TrialRun) -> list[str]:
    """Names of the diagnoses that a trial has."""
    return [name for name in DIAGNOSES if trial.tags.get(name) == "true"]


def on_front(trial: TrialRun) -> bool:
    """Whether no other trial of full fidelity is better on every objective."""
    return trial.outcome == Outcome.COMPLETED and trial.tags.get(Tag.ON_FRONT) == "true"
