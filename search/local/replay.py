"""What has to be trained to train a run again: itself, and for population based training the trials it went on from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mlflow import MlflowClient
from mlflow.entities import Run

from search.config.stretches import Stretch, parse_lineage
from search.names import Artifact, Kind, Tag
from search.tracking.reader import changed_on_the_way, read_artifact, read_config
from search.tracking.runs import search_all, sweep_runs_query
from vaegan_core.config.trial import TrialConfig

FROM_WEIGHTS = "from the weights of step"
"""What the tag of a variant says that began with what the original kept."""
State = tuple[int, int]
"""(trial, step): the state of a trial after the evaluation at a step."""


Lineages = Mapping[int, Sequence[Stretch]]
"""By trial, its stretches in order."""


@dataclass(frozen=True)
class Part:
    """A piece of training to do."""

    trial: int
    config: TrialConfig
    start: State | None
    """What it goes on from; None: from the beginning."""
    until: int
    own: bool
    """Whether it is of the run itself, whose curves are compared, and not of a donor."""

    @property
    def steps(self) -> int:
        return self.until - (self.start[1] if self.start else 0)


def parts(lineages: Lineages, trial: int, until: int) -> list[Part]:
    """The pieces of training, in order, that lead a trial to step `until`, donors' before what goes on from them."""
    done: list[Part] = []
    known: set[State] = set()

    def need(state: State) -> State:
        """Adds what leads to a donor's state, unless it is there already."""
        number, step = state
        if state in known:
            return state
        stretch = [each for each in lineages[number] if each.step < step][-1]
        nearest = max((s for t, s in known if t == number and stretch.step < s < step), default=None)
        start = (number, nearest) if nearest is not None else _origin(stretch, need)
        done.append(Part(number, stretch.config, start, step, own=False))
        known.add(state)
        return state

    stretches = [stretch for stretch in lineages[trial] if stretch.step < until]
    ends = [*(stretch.step for stretch in stretches[1:]), until]
    for stretch, end in zip(stretches, ends, strict=True):
        start = _origin(stretch, need)
        done.append(Part(trial, stretch.config, start, end, own=True))
    return done


def _origin(stretch: Stretch, need: Callable[[State], State]) -> State | None:
    return None if stretch.donor is None else need((stretch.donor, stretch.step))


def read_lineages(client: MlflowClient, run: Run) -> tuple[int, dict[int, tuple[Stretch, ...]]]:
    """The number of a run's trial, and the lineages of it and of all trials that it went on from, directly or not.

    Raises ValueError where parameters changed on the way and the run does not say from whose states it went on, and for
    a rerun that its configuration alone does not tell.
    """
    run = _with_its_own_beginning(client, run)
    number = int(run.data.tags.get(Tag.TRIAL, 0))
    lineages = {number: _stretches(client, run)}
    waiting = [stretch.donor for stretch in lineages[number] if stretch.donor is not None]
    while waiting:
        donor = waiting.pop()
        if donor not in lineages:
            lineages[donor] = _stretches(client, _trial(client, run, donor))
            waiting += [stretch.donor for stretch in lineages[donor] if stretch.donor is not None]
    return number, lineages


def _with_its_own_beginning(client: MlflowClient, run: Run) -> Run:
    """The run itself, or for the same again of a population's trial, that trial's."""
    tags, variant = run.data.tags, run.data.tags.get(Tag.VARIANT, "")
    if tags.get(Tag.KIND) != Kind.RERUN or not (Tag.ADOPTED in tags or FROM_WEIGHTS in variant):
        return run
    original = tags["mlflow.parentRunId"]
    if not variant:
        return client.get_run(original)
    how = "--from-checkpoint" if FROM_WEIGHTS in variant else "the same --set"
    raise ValueError(
        f"run {run.info.run_id} is a variant of {original} ({variant}) that began with the states of others, which its "
        f"configuration does not hold; rerun {original} with {how} instead"
    )


def _trial(client: MlflowClient, run: Run, number: int) -> Run:
    """Another trial of the sweep of `run`."""
    query = sweep_runs_query(run.data.tags[Tag.SWEEP_ID], Kind.TRIAL, number)
    for found in search_all(client, run.info.experiment_id, query):
        return found
    raise ValueError(
        f"run {run.info.run_id} went on from the state of trial {number} of its sweep, whose run is not in MLflow any "
        "more; restore it to train this one again"
    )


def _stretches(client: MlflowClient, run: Run) -> tuple[Stretch, ...]:
    run_id = run.info.run_id
    mutated = changed_on_the_way(client, run_id, run.data.metrics)
    if not mutated and Tag.ADOPTED not in run.data.tags:
        return (Stretch(0, None, read_config(client, run_id)),)
    try:
        text = read_artifact(client, run_id, Artifact.LINEAGE).decode()
    except ValueError:
        raise ValueError(
            f"run {run_id} continued from other trials' states with changed parameters (population based training), "
            f"and has no {Artifact.LINEAGE} that says from whose, because an earlier version made it; train a trial "
            "that was not changed, or the sweep again"
        ) from None
    return parse_lineage(text, f"{Artifact.LINEAGE} of run {run_id}")


def with_configs(lineages: Lineages, change: Callable[[TrialConfig], TrialConfig]) -> dict[int, tuple[Stretch, ...]]:
    """The same lineages with every configuration changed."""
    return {
        number: tuple(replace(stretch, config=change(stretch.config)) for stretch in stretches)
        for number, stretches in lineages.items()
    }
