"""Population based training, told through the searcher and the scheduler without Tune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sweeps import evaluation, trial_data
from tuning import Tuning, resume, tuning

from vaegan_core.config.trial import parse_trial
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
    t.report(number, evaluation(step, mse), saved=True)


def given(t: Tuning, number: int) -> tuple[int, int] | None:
    """(trial, step) of the state that a trial's next attempt begins with."""
    state = t.journal.state_to_go_on_from(number)
    return (state.trial, state.step) if state else None


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
    assert t.journal.outcome(3) == "running"
    again = t.suggest()
    assert (again["trial"], again["attempt"]) == (3, 2)
    assert (again["state"]["trial"], again["state"]["step"]) == (0, 120)
    config = parse_trial(parse_yaml(again["config"]))
    assert config.optimizer.autoencoder.lr == mutation.params[LR]
    assert config.model.width == donor[WIDTH]
    report_with_state(t, 3, 160, 0.9)
    assert len(t.journal.mutations(3)) == 1
    assert given(t, 3) == (3, 160), "from then on it has a state of its own"
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
    assert given(t, 3) == (0, 120)
    t.journal.forget(t.journal.superseded())
    for number, mse in ((1, 0.2), (2, 0.3), (3, 0.9)):
        report_with_state(t, number, 160, mse)
    t.journal.forget(t.journal.superseded())
    kept = [number for number in range(4) if t.journal.state(number, 120)]
    assert kept == [0], "states of those that are not among the best are not kept"


def test_a_state_is_kept_until_the_trial_that_was_given_it_has_one_of_its_own(tmp_path: Path) -> None:
    t = populating(tmp_path)
    t.start(4)
    for number, mse in enumerate((0.1, 0.2, 0.3, 0.9)):
        report_with_state(t, number, 120, mse)
    report_with_state(t, 0, 160, 0.1)
    t.journal.give(0, 120, given=False)  # no longer among the best
    assert {(each.trial, each.step) for each in t.journal.superseded()} == set()
    assert {each.donor for number in (1, 2, 3) for each in t.journal.mutations(number)} == {0}
    assert set(t.start(3)) == {1, 2, 3}
    for number in (3, 2):
        report_with_state(t, number, 160, 0.8)
    assert {(each.trial, each.step) for each in t.journal.superseded()} == {(2, 120), (3, 120)}
    report_with_state(t, 1, 160, 0.8)
    assert {(each.trial, each.step) for each in t.journal.superseded()} == {(n, 120) for n in range(4)}


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
    assert given(t, 3) is None, "its own parameters never meet another trial's state"
    report_with_state(t, 3, 120, 0.9)
    assert len(t.journal.mutations(3)) == 1
    assert given(t, 3) == (0, 120)
    t = resume(t)
    assert t.suggest()["trial"] == 0
    assert given(t, 3) == (0, 120)


def killed(*_: object) -> None:
    raise KeyboardInterrupt
