"""Suggestions that cannot be built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher
from sweeps import sweep_data
from tuning import tuning

from search.config.load import parse_sweep
from search.config.space import Space
from search.strategy.study import build_study
from vaegan_core.problems import ConfigError

FINISHED = Searcher.FINISHED
IMPOSSIBLE: dict[str, Any] = {
    "loss.kl": {
        "one_of": {
            "adaptive": {
                "target": 10,
                "rate": 0.1,
                "beta_min": {"low": 1e-9, "high": 1e-2, "log": True},
                "beta_max": {"low": 9e-3, "high": 1e3, "log": True},
            }
        }
    }
}
"""A space in which one combination of a thousand cannot be built: beta_min < beta_max must hold."""


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_an_impossible_suggestion_is_a_trial_that_ended_at_once_and_the_next_one_is_drawn(
    tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = tuning(tmp_path, space=IMPOSSIBLE, sampler={"name": sampler, "startup_trials": 1}, budget={"trials": 3})
    suggest = t.sweep.space.suggest
    wrong = [True, False, True]

    def suggested(trial: Any) -> dict[str, Any]:
        values = suggest(trial)
        return values | ({"loss.kl.beta_min": 0.0099, "loss.kl.beta_max": 0.0091} if wrong.pop(0) else {})

    monkeypatch.setattr(Space, "suggest", lambda _, trial: suggested(trial))
    assert t.start() == [1], "the first is impossible"
    t.complete(1)
    assert t.suggest() == FINISHED, "so is the third, which the budget counts too"
    assert [record.outcome for record in t.journal.trials()] == ["impossible", "completed", "impossible"]
    assert "beta_min < beta_max must hold" in t.journal.trial(0).reason
    assert t.told(0).constraints["diverged"] == 1.0
    assert t.journal.environment(0)["host"] == "none", "MLflow has a run of it"
    assert build_study(t.sweep, t.journal).trials[0].constraints["diverged"] == 1.0


def test_a_point_that_cannot_be_built_is_an_error_before_anything_runs() -> None:
    wrong = {"loss.kl.control": "adaptive", "loss.kl.beta_min": 9.9e-3, "loss.kl.beta_max": 9.1e-3}
    data = sweep_data(space=IMPOSSIBLE, points={"fine": {"loss.kl.beta_min": 1e-9}, "wrong": wrong})
    with pytest.raises(ConfigError) as caught:
        parse_sweep(data, "toy")
    assert caught.value.problems == [
        ("points.wrong.loss.kl", "beta_min < beta_max must hold, but got 0.0099 and 0.0091"),
    ]


def test_a_driver_that_dies_over_an_impossible_suggestion_leaves_no_trial_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = tuning(tmp_path, space=IMPOSSIBLE, sampler={"name": "random"}, budget={"trials": 3})
    wrong = {"loss.kl.control": "adaptive", "loss.kl.beta_min": 0.0099, "loss.kl.beta_max": 0.0091}
    monkeypatch.setattr(Space, "suggest", lambda *_: wrong)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("search.journal.journal.Journal.end_trial", killed)
    with pytest.raises(KeyboardInterrupt):
        t.suggest()
    assert t.journal.trials() == []
