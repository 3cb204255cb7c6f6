"""Population based training, told through the searcher and the scheduler without Tune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sweeps import evaluation, trial_data
from tuning import Tuning, resume, tuning

from search.paths import ADOPTED_FILE, CHECKPOINT_FILE, state_file, trial_directory
from vaegan_core.config import parse_trial
from vaegan_core.evaluation import PIXEL_MSE
from vaegan_core.strict_yaml import parse_yaml

LR, WIDTH = "optimizer.autoencoder.lr", "model.width"


def populating(directory: Path, **changes: Any) -> Tuning:
    return tuning(
        directory,
        objectives=[PIXEL_MSE],
        space={LR: {"low": 1e-4, "high": 1e-2, "log": True}, WIDTH: [8, 16]},
        base=trial_data(),
        scheduler={"name": "pbt", "every": 120, "quantile": 0.25, "resample": 0.0},
        **changes,
    )


def report_with_state(t: Tuning, number: int, step: int, mse: float) -> None:
    directory = trial_directory(t.directory, number)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CHECKPOINT_FILE).unlink(missing_ok=True)  # replaced, as an atomic write does
    (directory / CHECKPOINT_FILE).write_text(f"{number} at {step}")
    t.report(number, evaluation(step, mse))


def test_the_worst_of_a_population_goes_on_from_the_state_of_the_best(tmp_path: Path) -> None:
    t = populating(tmp_path)
    t.start(4)
    for number, mse in enumerate((0.1, 0.2, 0.3)):
        report_with_state(t, number, 120, mse)
    report_with_state(t, 3, 120, 0.9)
    [mutation] = t.journal.mutations(3)
    assert (mutation.step, mutation.donor) == (120, 0)
    donor = t.journal.trial(0).params
    assert mutation.params[LR] / donor[LR] == pytest.approx(0.8) or mutation.params[LR] / donor[LR] == pytest.approx(
        1.25
    )
    assert mutation.params[WIDTH] == donor[WIDTH], "another width would not fit the state"
    assert (trial_directory(t.directory, 3) / ADOPTED_FILE).read_text() == "0 at 120"
    assert t.journal.outcome(3) == "running"
    again = t.suggest()
    assert (again["trial"], again["attempt"]) == (3, 2)
    config = parse_trial(parse_yaml(again["config"]))
    assert config.optimizer.autoencoder.lr == mutation.params[LR]
    assert config.model.width == donor[WIDTH]
    report_with_state(t, 3, 120, 0.9)  # what a worker reports again from the state it starts with
    assert len(t.journal.mutations(3)) == 1
    points = {(p.key, p.step): p.value for p in t.journal.points(3)}
    assert points[f"param/{LR}", 0] == t.journal.trial(3).params[LR]
    assert points[f"param/{LR}", 120] == mutation.params[LR]
    assert t.journal.failures(3) == []


def test_a_donor_gives_its_state_of_the_same_step(tmp_path: Path) -> None:
    t = populating(tmp_path)
    t.start(4)
    report_with_state(t, 0, 120, 0.1)
    report_with_state(t, 0, 160, 0.09)
    for number, mse in ((1, 0.2), (2, 0.3), (3, 0.9)):
        report_with_state(t, number, 120, mse)
    assert (trial_directory(t.directory, 3) / ADOPTED_FILE).read_text() == "0 at 120"
    kept = [n for n in range(4) if state_file(trial_directory(t.directory, n), 120).exists()]
    assert kept == [0], "states of those that are not among the best are not kept"


def test_a_donor_that_has_changed_since_gives_what_it_was_at_the_step_of_its_state(tmp_path: Path) -> None:
    narrow = {LR: 1e-3, WIDTH: 8}
    t = populating(tmp_path, points={"a": narrow, "b": narrow, "wide": {LR: 2e-3, WIDTH: 16}, "late": narrow})
    t.start(4)
    for number, mse in ((0, 0.3), (1, 0.2), (2, 0.1)):  # each is the best when it comes
        report_with_state(t, number, 120, mse)
    for number, mse in ((0, 0.1), (2, 0.9)):
        report_with_state(t, number, 240, mse)
    assert [(each.step, each.donor) for each in t.journal.mutations(2)] == [(240, 0)]
    assert parse_trial(parse_yaml(t.journal.trial(2).config)).model.width == 8
    report_with_state(t, 3, 120, 0.9)
    [mutation] = t.journal.mutations(3)
    assert (mutation.step, mutation.donor) == (120, 2)
    assert mutation.params[WIDTH] == 16
    assert mutation.params[LR] in (pytest.approx(0.8 * 2e-3), pytest.approx(1.25 * 2e-3))
    config = parse_trial(parse_yaml(t.journal.trial(3).config))
    assert config.model.width == 16, "or the state that it goes on from would not fit"


def test_a_mutation_is_on_record_before_it_is_carried_out_and_a_resumed_sweep_carries_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = populating(tmp_path)
    t.start(4)
    for number, mse in enumerate((0.1, 0.2, 0.3)):
        report_with_state(t, number, 120, mse)
    with monkeypatch.context() as patch:
        patch.setattr("search.journal.journal.Journal.mutate_trial", killed)
        with pytest.raises(KeyboardInterrupt):
            report_with_state(t, 3, 120, 0.9)
    adopted = trial_directory(t.directory, 3) / ADOPTED_FILE
    assert not adopted.exists(), "its own parameters never meet another trial's state"
    with monkeypatch.context() as patch:
        patch.setattr("search.strategy.population.os.link", killed)
        with pytest.raises(KeyboardInterrupt):
            report_with_state(t, 3, 120, 0.9)
    assert len(t.journal.mutations(3)) == 1
    assert not adopted.exists()
    resume(t)
    assert adopted.read_text() == "0 at 120"


def killed(*_: object) -> None:
    raise KeyboardInterrupt
