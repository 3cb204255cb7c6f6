"""What a report says in words: of a finished sweep, and of one that runs, is empty, or has nothing to recommend."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from planted import LR, Planted, drawn, flat_curve, planted
from sweeps import make_sweep

from search.report.findings import Findings, find
from search.report.health import Facts
from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE

CONFIRM = "vaegan promote toy"


def found_in(facts: Facts) -> Findings:
    return find(facts.sweep, facts.evaluations, facts.plan)


def trials(count: int = 3, **changes: dict[str, str]) -> list[Planted]:
    random = np.random.default_rng(0)
    return [Planted(drawn(random), flat_curve(random, offset=0.02 * index), **changes) for index in range(count)]


def confirmed(mean: float, half: float, tag: str = "3 of 3 seeds") -> dict[str, Any]:
    metrics = {f"confirmed/{key}": mean * scale for key, scale in ((PIXEL_MSE, 1.0), (LAYOUT_FD, 500.0))}
    metrics |= {f"confirmed_half_width/{key}": half * scale for key, scale in ((PIXEL_MSE, 1.0), (LAYOUT_FD, 500.0))}
    return {"metrics": metrics, "tags": {"confirmed": tag, "feasible": "true"}}


def test_a_finished_sweep_says_what_it_searched_spent_and_found() -> None:
    stopped = Planted({LR: 1e-3}, {120: (0.3, 90.0)}, "pruned")
    found = found_in(planted([*trials(), stopped], **{"sweep/trial_hours": 2.5, "sweep/gpu_hours": 1.25}))
    text = " ".join(found.words)
    assert text.startswith("toy searched 5 parameters (optimizer.autoencoder.lr, model.width, loss.kl.control, ")
    assert "with sampler random and scheduler asha, 480 steps a trial" in text
    assert "It spent 4 trials: 3 completed and 1 pruned; 1,560 steps (early stopping saved 19%), 2.5 hours" in text
    assert "1.2 GPU hours" in text
    assert "Recommended is trial 0, with val/pixel_mse 0.1" in text
    assert "among the 3 completed trials" in text
    assert f"One seed only: it was chosen for being good, so that another seed is likely to be worse. {''}" in text
    assert text.endswith(CONFIRM)
    assert found.recommended == 0
    assert found.command == "vaegan promote toy"


def test_a_confirmed_trial_comes_with_its_interval_and_the_next_one() -> None:
    one, two, three = trials()
    close = [
        Planted(one.params, one.curve, **confirmed(0.11, 0.02)),
        Planted(two.params, two.curve, **confirmed(0.12, 0.02)),
        three,
    ]
    text = " ".join(found_in(planted(close)).words)
    assert "Confirmed on fresh seeds, mean and 95 % interval: val/pixel_mse 0.11 ± 0.02" in text
    assert "The intervals of trial 1, the next, overlap with these" in text
    assert "One seed only" not in text
    apart = [close[0], Planted(two.params, two.curve, **confirmed(0.19, 0.001)), three]
    assert "do not overlap" in " ".join(found_in(planted(apart)).words)
    lost = [Planted(one.params, one.curve, **confirmed(0.11, 0.02, "2 of 3 seeds"))]
    assert "a seed that diverged or failed speaks against it" in " ".join(found_in(planted(lost)).words)


def test_a_sweep_that_runs_says_how_far_it_is() -> None:
    running = Planted({LR: 1e-3}, {120: (0.3, 90.0)}, "running")
    found = found_in(planted([*trials(), running], make_sweep(budget={"trials": 9})))
    assert "It still runs: 1 running and 5 still to be drawn. What follows is what is known so far." in found.words
    assert found.recommended == 0
    assert found.command == "vaegan status toy"
    waiting = Planted({LR: 1e-3}, {120: (0.3, 90.0)}, "interrupted")
    found = found_in(planted([*trials(), waiting], make_sweep(budget={"trials": 4})))
    assert "It has not ended: 1 interrupted. What follows is what is known so far." in found.words
    assert found.command == "vaegan resume toy"


def test_an_empty_sweep_says_so() -> None:
    found = found_in(planted([]))
    assert "No trial has begun yet." in found.words
    assert found.recommended is None
    assert found.importances == ()
    assert found.command == "vaegan status toy"
    unmeasured = dataclasses.replace(planted([]).sweep, baselines={})
    assert find(unmeasured, planted([]).evaluations, None).recommended is None


def test_nothing_is_recommended_where_all_diverged_failed_or_violate_a_constraint() -> None:
    random = np.random.default_rng(1)
    diverged = found_in(planted([Planted(drawn(random), {}, "diverged") for _ in range(5)]))
    assert diverged.words[-1] == "No trial has reached the last step, so that none may be recommended."
    assert diverged.recommended is None
    assert "promote" not in diverged.command
    failed = found_in(planted([Planted(drawn(random), {}, "failed", tags={"reason": "E"}) for _ in range(5)]))
    assert failed.command == "vaegan resume toy --retry-failed"
    infeasible = found_in(planted(trials(tags={"feasible": "false"})))
    assert infeasible.words[-1] == "Every completed trial violates a constraint, so that none may be recommended."
    assert infeasible.recommended is None


def test_a_sweep_of_another_version_is_told_from_its_runs_alone() -> None:
    facts = planted(trials())
    found = find(facts.sweep, facts.evaluations, None)
    assert found.recommended == 0
    assert found.words[0].startswith("toy searched ")
    assert len(found.checks) == 8
