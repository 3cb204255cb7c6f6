"""What fresh seeds differ by, on planted values and on planted runs."""

from __future__ import annotations

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from trials import tiny

from search.local.seeds import Spread, read_seeds, spread
from search.names import Artifact, Kind, Tag
from search.tracking.client import ensure_experiment
from search.tracking.runs import NewRun, create_run
from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE

PLACE = {"host": "h", "device": "d"}


@pytest.mark.parametrize("n", [2, 3, 5])
def test_one_more_seed_lies_within_in_95_of_100_cases_although_the_trial_was_chosen_for_its_luck(n: int) -> None:
    """Judged against the trial's own value, the luckiest of 30, a seed would be called beyond in 11 to 31 of 100."""
    random = np.random.default_rng(0)
    beyond = against_the_chosen = 0
    for _ in range(4000):
        seeds, one_more = random.normal(5.0, 2.0, n), random.normal(5.0, 2.0)
        chosen = random.normal(5.0, 2.0, 30).min()
        found = spread(seeds.tolist())
        assert found is not None
        beyond += found.beyond(one_more)
        against_the_chosen += abs(one_more - chosen) > found.half_width
    assert beyond / 4000 == pytest.approx(0.05, abs=0.01)
    assert against_the_chosen / 4000 > 0.1


def test_a_real_change_lies_beyond() -> None:
    assert Spread(5.0, 0.1, 5).beyond(5.5)
    assert not Spread(5.0, 0.1, 5).beyond(5.2)


def test_one_seed_tells_nothing() -> None:
    assert spread([]) is None
    assert spread([1.0]) is None
    assert spread([1.0, 3.0]) == Spread(2.0, pytest.approx(2**0.5), 2)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    return MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('seeds')}/mlflow.db")


def plant(
    client: MlflowClient, kind: Kind, parent: str | None, curve: dict[int, float], seed: int = 0, **tags: str
) -> str:
    """A run with its configuration, a curve of the pixel MSE, and its final value."""
    run_id = create_run(client, ensure_experiment(client, "seeds"), NewRun(kind, "r", PLACE, parent=parent, more=tags))
    client.log_text(run_id, tiny(train__seed=seed).to_yaml(), Artifact.CONFIG)
    last = max(curve)
    final = [Metric("final/step", last, 0, last), Metric(f"final/{PIXEL_MSE}", curve[last], 0, last)]
    client.log_batch(run_id, metrics=[*(Metric(PIXEL_MSE, value, 0, step) for step, value in curve.items()), *final])
    return run_id


def test_replicates_and_reruns_with_another_seed_count_and_nothing_else_does(client: MlflowClient) -> None:
    trial = plant(client, Kind.TRIAL, None, {20: 9.0, 40: 9.0})
    first = plant(client, Kind.REPLICATE, trial, {20: 2.0, 40: 1.0}, seed=1)
    plant(client, Kind.REPLICATE, trial, {20: 4.0, 40: 3.0}, seed=2)
    plant(client, Kind.REPLICATE, trial, {20: 8.0}, seed=3, **{Tag.OUTCOME: "diverged"})
    plant(client, Kind.RERUN, trial, {20: 6.0, 40: 5.0}, seed=7, **{Tag.VARIANT: "train.seed=7"})
    plant(client, Kind.RERUN, trial, {20: 0.0, 40: 0.0}, seed=8, **{Tag.VARIANT: "train.seed=8, loss.kl.sigma=1"})
    plant(client, Kind.RERUN, trial, {20: 0.0, 40: 0.0})
    own = plant(client, Kind.RERUN, trial, {20: 0.0, 40: 0.0}, seed=9, **{Tag.VARIANT: "train.seed=9"})
    run = client.get_run(trial)
    found = read_seeds(client, run, [PIXEL_MSE, LAYOUT_FD], 40, but_not=own)
    assert sorted(found.values[PIXEL_MSE]) == [1.0, 3.0, 5.0]
    assert (found.seeds, found.diverged, found.of(LAYOUT_FD)) == (3, 1, None)
    earlier = read_seeds(client, run, [PIXEL_MSE], 20, but_not=own)
    assert sorted(earlier.values[PIXEL_MSE]) == [2.0, 4.0, 6.0, 8.0], "from the curves, for a shorter rerun"
    siblings = read_seeds(client, client.get_run(first), [PIXEL_MSE], 40, but_not=own)
    assert sorted(siblings.values[PIXEL_MSE]) == [3.0, 5.0], "a replicate has the others"


def test_a_seed_counts_once_whoever_trained_it_and_as_far_as_any_came(client: MlflowClient) -> None:
    trial = plant(client, Kind.TRIAL, None, {20: 9.0, 40: 9.0})
    plant(client, Kind.REPLICATE, trial, {20: 2.0, 40: 1.0}, seed=1)
    plant(client, Kind.REPLICATE, trial, {20: 4.0, 40: 3.0}, seed=2)
    plant(client, Kind.REPLICATE, trial, {20: 2.0, 40: 1.0}, **{Tag.SEED: "1"})
    plant(client, Kind.REPLICATE, trial, {20: 4.0}, **{Tag.SEED: "2", Tag.OUTCOME: "interrupted"})
    plant(client, Kind.RERUN, trial, {20: 4.0, 40: 3.0}, seed=2, **{Tag.VARIANT: "train.seed=2"})
    plant(client, Kind.REPLICATE, trial, {20: 8.0}, seed=3, **{Tag.OUTCOME: "diverged"})
    plant(client, Kind.REPLICATE, trial, {20: 8.0}, **{Tag.SEED: "3", Tag.OUTCOME: "diverged"})
    found = read_seeds(client, client.get_run(trial), [PIXEL_MSE], 40)
    assert sorted(found.values[PIXEL_MSE]) == [1.0, 3.0]
    assert (found.seeds, found.diverged) == (2, 1)


def test_a_replicate_that_does_not_say_its_seed_counts_for_itself(client: MlflowClient) -> None:
    trial = plant(client, Kind.TRIAL, None, {40: 9.0})
    experiment = client.get_run(trial).info.experiment_id
    for value in (1.0, 3.0):
        run_id = create_run(client, experiment, NewRun(Kind.REPLICATE, "r", PLACE, parent=trial))
        client.log_batch(run_id, metrics=[Metric(PIXEL_MSE, value, 0, 40)])
    assert sorted(read_seeds(client, client.get_run(trial), [PIXEL_MSE], 40).values[PIXEL_MSE]) == [1.0, 3.0]
