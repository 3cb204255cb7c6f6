"""A trial of population based training, trained again with the states that it went on from: bit for bit the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from delivered import write
from mlflow import MlflowClient
from sweeps import sweep_data
from trials import TINY
from tuning import Tuning

from search.config.load import parse_sweep
from search.config.stretches import Stretch
from search.journal.journal import Journal
from search.journal.lineage import lineage
from search.journal.records import FileKind, SavedRecord
from search.local.find import find_run
from search.local.plan import Wanted, in_words, make_plan
from search.local.replay import Part, parts
from search.local.rerun import rerun
from search.provenance import describe_environment
from search.running.messages import Evaluated, Started
from search.storage.trial_files import TrialFiles, digest_of
from vaegan_core.config.trial import parse_trial
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import PIXEL_MSE, Evaluation
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.strict_yaml import parse_yaml
from vaegan_core.training.trainer import Trainer

A, B, C, D = (parse_trial(TINY | {"frames": name}) for name in "abcd")
"""Configurations that are told apart by their frames."""
EVERY = 4
PLANTED = {
    EVERY: {0: 0.1, 1: 0.2, 2: 0.9},
    2 * EVERY: {2: 0.1, 0: 0.2, 1: 0.9},
    3 * EVERY: {0: 0.1, 1: 0.2, 2: 0.3},
}
"""By step, the pixel MSE that the population is told, in the order in which trials come there: 2 goes on from 0, and
then the others from 2."""


def test_a_trial_by_itself_is_one_part() -> None:
    assert parts({7: [Stretch(0, None, A)]}, 7, 20) == [Part(7, A, None, 20, own=True)]


def test_donors_are_trained_before_what_goes_on_from_them_each_state_once() -> None:
    lineages = {
        0: [Stretch(0, None, A)],
        1: [Stretch(0, None, B), Stretch(10, 0, C)],
        2: [Stretch(0, None, D), Stretch(10, 0, B), Stretch(20, 1, D)],
    }
    found = parts(lineages, 2, 30)
    assert found == [
        Part(2, D, None, 10, own=True),
        Part(0, A, None, 10, own=False),
        Part(2, B, (0, 10), 20, own=True),
        Part(1, C, (0, 10), 20, own=False),
        Part(2, D, (1, 20), 30, own=True),
    ]
    assert [part.steps for part in found] == [10, 10, 10, 10, 10]
    assert parts(lineages, 2, 20) == found[:3], "what comes later is not needed"
    assert parts(lineages, 2, 15)[-1] == Part(2, B, (0, 10), 15, own=True)


def test_a_donor_goes_on_from_its_own_earlier_state() -> None:
    lineages = {0: [Stretch(0, None, A)], 1: [Stretch(0, None, B), Stretch(10, 0, C), Stretch(20, 0, D)]}
    donors = [part for part in parts(lineages, 1, 30) if not part.own]
    assert donors == [Part(0, A, None, 10, own=False), Part(0, A, (0, 10), 20, own=False)]


class Population:
    """A population of three, trained step by step as a sweep's driver and workers do, without Ray."""

    def __init__(self, directory: Path, frame_set: FrameSet, features: FrameFeatures) -> None:
        base = TINY | {"frames": str(frame_set.path)}
        base |= {"train": TINY["train"] | {"steps": 3 * EVERY, "log_every": 2}}
        base |= {"evaluate": TINY["evaluate"] | {"every": EVERY}}
        space: dict[str, Any] = {
            "optimizer.autoencoder.lr": {"low": 1e-4, "high": 1e-2, "log": True},
            "model.width": [4, 8],
            "loss.kl.sigma": 0.3,
        }
        pbt = {"name": "pbt", "every": EVERY, "quantile": 0.25, "resample": 0.5}
        data = sweep_data(base=base, space=space, scheduler=pbt, objectives=[PIXEL_MSE], budget={"trials": 3})
        self.sweep = parse_sweep(data, "toy")
        self.journal = Journal.create(
            directory / "toy" / "journal.db",
            id="a",
            sweep=self.sweep.config.to_yaml(),
            frames=frame_set.fingerprint,
            features=features.fingerprint,
            baselines=json.dumps(features.baselines),
        )
        self.tuning = Tuning(self.sweep, self.journal)
        self.frame_set, self.features = frame_set, features
        self.files = TrialFiles(str((directory / "toy").resolve()))

    def run(self) -> None:
        self.tuning.start(3)
        for step, planted in PLANTED.items():
            for number, mse in planted.items():
                self._train(number, step, mse)

    def _train(self, number: int, until: int, mse: float) -> None:
        """A worker's share: from the state that the journal names to the next look."""
        record, state = self.journal.trial(number), self.journal.state_to_go_on_from(number)
        config = parse_trial(parse_yaml(record.config))
        trainer = Trainer(config, self.frame_set, self.features)
        if state is not None:
            with self.files.reading(state.key, state.sha256) as path:
                trainer.load(path, of_another=state.trial != number)
        self.tuning.tell(number, Started(record.config, describe_environment(config), until - EVERY))
        mutations = len(self.journal.mutations(number))

        def report(evaluation: Evaluation) -> None:
            key = f"trials/{number:05d}/{evaluation.step}.safetensors"
            with self.files.writing(key) as path:
                trainer.save(path, evaluation)
                saved = SavedRecord(number, 1, evaluation.step, FileKind.STATE, key, digest_of(path))
            told = replace(evaluation, metrics=evaluation.metrics | {PIXEL_MSE: mse})
            self.tuning.tell(number, Evaluated(told, (saved,)))

        trainer.run(report, until=until)
        if len(self.journal.mutations(number)) > mutations:
            assert self.tuning.suggest()["trial"] == number, "the attempt has ended, and the next one begins"


@pytest.fixture(scope="module")
def population(
    tmp_path_factory: pytest.TempPathFactory, frame_set: FrameSet, frame_features: FrameFeatures
) -> tuple[MlflowClient, Population]:
    """A finished one, and MLflow as it was delivered there."""
    directory = tmp_path_factory.mktemp("population")
    population = Population(directory, frame_set, frame_features)
    population.run()
    uri = f"sqlite:///{directory}/mlflow.db"
    write(directory / "toy", uri).finish("")
    return MlflowClient(uri), population


def test_a_trial_begins_with_its_own_configuration_and_goes_on_with_its_donors(
    population: tuple[MlflowClient, Population],
) -> None:
    client, made = population
    mutations = {number: made.journal.mutations(number) for number in range(3)}
    assert [(each.step, each.donor) for each in mutations[2]] == [(EVERY, 0)]
    assert (2 * EVERY, 2) in [(each.step, each.donor) for each in mutations[0]], "a donor that had gone on from another"
    stretches = lineage(made.sweep, made.journal, 2)
    assert stretches[0].config.optimizer.autoencoder.lr == made.journal.trial(2).params["optimizer.autoencoder.lr"]
    assert stretches[0].config.model.width == made.journal.trial(2).params["model.width"]
    assert stretches[1].config.model.width == made.journal.trial(0).params["model.width"], "the donor's networks"
    assert stretches[1].config.to_yaml() == made.journal.trial(2).config, "what it was assigned"
    assert find_run(client, "toy/2").data.tags["adopted"] == f"from trial 0 at step {EVERY}"


def test_a_trial_of_a_population_is_repeated_bit_for_bit(
    population: tuple[MlflowClient, Population], tmp_path: Path
) -> None:
    client, made = population
    plan = make_plan(client, Wanted("toy/0"), tmp_path)
    assert any("Population based training had it go on from trial 2 at step 8" in line for line in in_words(plan))
    assert [(part.trial, part.start, part.until) for part in plan.parts if not part.own] == [
        (0, None, 4),
        (2, (0, 4), 8),
    ]
    assert sum(part.own for part in plan.parts) == 1 + len(made.journal.mutations(0))
    seen: list[int] = []
    result = rerun(client, plan, seen.append, lambda _: None)
    assert result.identical, result.in_words()
    assert result.comparison.until == 3 * EVERY
    assert result.comparison.compared > 100
    assert seen[-1] == plan.steps
    tags = client.get_run(result.run_id).data.tags
    assert (tags["identical"], tags["vaegan.kind"]) == ("true", "rerun")
    again = make_plan(client, Wanted(result.run_id), tmp_path)
    assert again.parts == plan.parts, "a rerun is repeated as its original is"


def test_without_its_lineage_such_a_trial_is_refused(
    population: tuple[MlflowClient, Population], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = population
    monkeypatch.setattr("search.local.replay.read_artifact", missing)
    with pytest.raises(ValueError, match=r"continued from other trials' states .* an earlier version made it"):
        make_plan(client, Wanted("toy/2"), tmp_path)


def missing(*_: object) -> bytes:
    raise ValueError("no artifact")
