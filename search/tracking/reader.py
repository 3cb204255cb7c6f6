"""Finished runs, read back from MLflow: all that report, promote and rerun know of a sweep. No Ray, no journal."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from search.config.load import read_sweep
from search.config.sweep import Sweep
from search.names import STEP, Artifact, Kind, Outcome, Prefix, Tag
from search.redaction import redact
from search.standings.candidates import Candidate, Confirmation, best_first
from search.standings.scales import Scales
from search.tracking.errors import is_refusal
from search.tracking.runs import search_all, sweep_runs_query
from vaegan_core.config.trial import TrialConfig, parse_trial
from vaegan_core.data.frames import MANIFEST_FILE, FrameSet
from vaegan_core.evaluation import Point
from vaegan_core.spelling import did_you_mean
from vaegan_core.strict_yaml import parse_yaml

RUN_ID = re.compile(r"[0-9a-f]{32}")
BEGINNING = re.compile(r"[0-9a-f]{4,31}")
"""What a run id may be shortened to."""
SWEEP_AND_TRIAL = re.compile(r"(?P<sweep>[^/]+)/(?P<trial>\d+)")


@dataclass(frozen=True)
class TrialRun:
    """A trial, from its MLflow run."""

    run_id: str
    number: int
    outcome: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    artifact_uri: str = ""
    """Where its artifacts are, so that reading some of many runs needs no request for each run."""

    @property
    def final(self) -> dict[str, float]:
        """Validation metrics of its last evaluation."""
        return _under(Prefix.FINAL, self.metrics)

    @property
    def step(self) -> int:
        """Step of its last evaluation, 0 before any."""
        return int(self.metrics.get(f"{Prefix.FINAL}{STEP}", 0))

    @property
    def confirmed(self) -> dict[str, float]:
        """Means of the objectives over fresh seeds; empty without a confirmation."""
        return _under(Prefix.CONFIRMED, self.metrics)

    @property
    def confirmation(self) -> Confirmation | None:
        counts = re.fullmatch(r"(\d+) of (\d+) seeds", self.tags.get(Tag.CONFIRMED, ""))
        if not counts:
            return None
        return Confirmation(
            completed=int(counts[1]),
            ended=int(counts[2]),
            mean=self.confirmed,
            half_width=_under(Prefix.HALF_WIDTH, self.metrics),
        )

    @property
    def lost(self) -> bool:
        return self.confirmation is not None and self.confirmation.lost

    @property
    def feasible(self) -> bool:
        return self.tags.get(Tag.FEASIBLE) != "false"


@dataclass(frozen=True)
class SweepRun:
    """A sweep's parent run with its trials, in order of number."""

    run_id: str
    name: str
    experiment_id: str
    objectives: tuple[str, ...]
    baselines: Mapping[str, float]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    trials: tuple[TrialRun, ...]

    @property
    def scales(self) -> Scales:
        return Scales.of(self.baselines, self.objectives)

    @property
    def completed(self) -> list[TrialRun]:
        """Trials of full fidelity, without those of blocks, which were drawn to answer questions and rank nowhere."""
        return [trial for trial in self.trials if trial.outcome == Outcome.COMPLETED and Tag.BLOCK not in trial.tags]

    @property
    def ranked(self) -> list[TrialRun]:
        """Trials of full fidelity, best first, see `best_first`."""
        trials = {trial.number: trial for trial in self.completed}
        if not trials:  # a sweep may not have measured its baselines yet
            return []
        candidates = [Candidate(t.number, t.final, t.confirmed, t.feasible, t.lost) for t in trials.values()]
        return [trials[number] for number in best_first(candidates, self.objectives, self.scales)]

    @property
    def hypervolume(self) -> float:
        return self.scales.hypervolume(trial.final for trial in self.completed if trial.feasible)


def _under(prefix: Prefix, metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics below a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}


def find_sweep(client: MlflowClient, name: str) -> SweepRun:
    """The newest sweep of that name in any experiment. Raises ValueError when there is none."""
    return sweep_of_run(client, require_sweep(client, name))


def sweep_of_run(client: MlflowClient, parent: Run) -> SweepRun:
    """The sweep whose own run is `parent`."""
    return SweepRun(
        run_id=parent.info.run_id,
        name=parent.data.tags.get(Tag.SWEEP_NAME, parent.info.run_name),
        experiment_id=parent.info.experiment_id,
        objectives=tuple(parent.data.tags[Tag.OBJECTIVES].split(",")),
        baselines=_under(Prefix.BASELINE, parent.data.metrics),
        metrics=parent.data.metrics,
        tags=parent.data.tags,
        trials=_trials_of(client, parent),
    )


def require_sweep(client: MlflowClient, name: str) -> Run:
    """The newest parent run of a sweep of that name in any experiment. Raises ValueError when there is none."""
    everywhere = experiments(client)
    query = f"tags.`{Tag.KIND}` = '{Kind.SWEEP}' and attributes.run_name = '{name}'"
    newest = (
        client.search_runs(everywhere, query, max_results=1, order_by=["attributes.start_time DESC"])
        if "'" not in name  # no sweep has one, and MLflow's queries cannot hold it
        else []
    )
    if not newest:
        every = client.search_runs(everywhere, f"tags.`{Tag.KIND}` = '{Kind.SWEEP}'", max_results=1000)
        names = sorted({run.info.run_name for run in every})
        known = f"{', '.join(names) or 'none'}{did_you_mean(name, names)}"
        raise ValueError(f"no sweep named {name} at {redact(client.tracking_uri)}; sweeps there: {known}")
    return newest[0]


def _trials_of(client: MlflowClient, parent: Run) -> tuple[TrialRun, ...]:
    query = sweep_runs_query(parent.data.tags[Tag.SWEEP_ID], Kind.TRIAL)
    trials = [
        TrialRun(
            run_id=run.info.run_id,
            number=int(run.data.tags[Tag.TRIAL]),
            outcome=run.data.tags[Tag.OUTCOME],
            params=run.data.params,
            metrics=run.data.metrics,
            tags=run.data.tags,
            artifact_uri=run.info.artifact_uri,
        )
        for run in search_all(client, parent.info.experiment_id, query)
    ]
    return tuple(sorted(trials, key=lambda trial: trial.number))


def read_plan(client: MlflowClient, sweep: SweepRun) -> Sweep | None:
    """What the sweep was to do, from its `sweep.yaml`; None where that is not there or is of another version."""
    try:
        text = read_artifact(client, sweep.run_id, Artifact.SWEEP).decode()
        return read_sweep(text, f"{Artifact.SWEEP} of run {sweep.run_id}")
    except ValueError:
        return None


def runs_beginning(client: MlflowClient, text: str, most: int = 1000) -> list[Run]:
    """Runs of any experiment whose ids begin with these hexadecimal digits."""
    return list(client.search_runs(experiments(client), f"attributes.run_id LIKE '{text}%'", max_results=most))


def experiments(client: MlflowClient) -> list[str]:
    """Ids of all experiments."""
    return [experiment.experiment_id for experiment in client.search_experiments()]


def changed_on_the_way(client: MlflowClient, run_id: str, keys: Iterable[str]) -> bool:
    """Whether population based training changed parameters of a run with these metrics."""
    changed = [key for key in keys if key.startswith(Prefix.PARAM)]
    return any(point.step > 0 for key in changed for point in read_curve(client, run_id, key))


def open_frames(where: str, run_id: str, trained_on: str | None, *, others: bool = False) -> FrameSet:
    """The frame set at `where`, which must be the one that the run was trained on, but with `others`.

    Raises ValueError if there is none, or another one, or a damaged one.
    """
    if not (Path(where) / MANIFEST_FILE).is_file():
        raise ValueError(
            f"run {run_id} was trained on frames {trained_on}, but there are none at {where}; say with --frames DIR "
            "where they are now"
        )
    frame_set = FrameSet.open(where)
    if trained_on != frame_set.fingerprint and not others:
        raise ValueError(
            f"run {run_id} was trained on frames {trained_on}, but {where} holds {frame_set.fingerprint}; give the "
            "right directory with --frames"
        )
    return frame_set


def read_config(client: MlflowClient, run_id: str) -> TrialConfig:
    """The configuration that a run was trained with; `auto` where the machine decided.

    Raises ValueError if the run or its file is missing.
    """
    require_run(client, run_id)
    text = read_artifact(client, run_id, Artifact.CONFIG).decode()
    return parse_trial(parse_yaml(text, f"config.yaml of run {run_id}"), f"config.yaml of run {run_id}")


def seed_of(client: MlflowClient, run: Run) -> int:
    """The seed that a run was trained with. Raises ValueError if neither its tags nor its configuration say."""
    stated = run.data.tags.get(Tag.SEED)
    return int(stated) if stated else read_config(client, run.info.run_id).train.seed


def require_run(client: MlflowClient, run_id: str) -> Run:
    """The run of this id. Raises ValueError if there is none."""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if not is_refusal(error):
            raise
        raise ValueError(f"there is no run {run_id} at {redact(client.tracking_uri)}") from None


def read_artifact(client: MlflowClient, run_id: str, path: str) -> bytes:
    """Bytes of a run's artifact. Raises ValueError when the run does not have it."""
    with TemporaryDirectory() as directory:
        try:
            return Path(client.download_artifacts(run_id, path, directory)).read_bytes()
        except Exception as error:  # also what clients of object stores raise
            raise ValueError(f"run {run_id} has no artifact {path}: {str(error).splitlines()[0]}") from None


def check_weights(path: Path, tags: Mapping[str, str], whose: str) -> None:
    """Raises ValueError if a file of weights does not have the SHA-256 that the tags of `whose` state, if they do."""
    expected, found = tags.get(Tag.MODEL_SHA), hashlib.sha256(path.read_bytes()).hexdigest()
    if expected and expected != found:
        raise ValueError(
            f"the weights of {whose} are not those that were logged: their SHA-256 is {found}, but the tag "
            f"{Tag.MODEL_SHA} says {expected}; they were exchanged or damaged"
        )


def read_curve(client: MlflowClient, run_id: str, key: str) -> list[Point]:
    """All points of one metric, in order of step."""
    history = client.get_metric_history(run_id, key)
    return sorted((Point(key, m.step, m.value, m.timestamp) for m in history), key=lambda point: point.step)


def image_paths(client: MlflowClient, run_id: str) -> dict[tuple[str, int], str]:
    """Artifact paths of a run's PNG image grids by (key, step), from the names that MLflow's log_image gives them."""
    return images_among(item.path for item in client.list_artifacts(run_id, "images"))


def images_among(paths: Iterable[str]) -> dict[tuple[str, int], str]:
    """PNG image grids among artifact paths, by (key, step)."""
    found: dict[tuple[str, int], str] = {}
    for path in paths:
        name = Path(path).name
        parts = name.replace("%", "+").split("+")
        if name.endswith(".png") and len(parts) > 2 and parts[1] == "step":
            found[(parts[0], int(parts[2]))] = path
    return found
