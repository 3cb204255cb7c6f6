"""The six questions that ship: what they ask, in how many trials, at either size."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.config.load import load_sweep

FILE = Path(__file__).parents[3] / "search" / "sweeps" / "questions.yaml"
SHARED = [
    "prior-samples-contribute",
    "vanishing-loss-starves",
    "linear-features-grow",
    "instance-norm-grows-kl",
    "capacity-keeps-z",
]


@pytest.mark.parametrize(("preset", "steps", "lr"), [("small", 300, 1e-3), ("full", 10_000, 1e-4)])
def test_six_questions_in_two_groups(preset: str, steps: int, lr: float) -> None:
    sweep = load_sweep(FILE, [f"preset={preset}"])
    assert [(list(group.questions), group.size) for group in sweep.groups] == [
        (SHARED, 16),
        (["one-step-per-term"], 6),
    ]
    assert (sweep.block_steps, sweep.num_trials) == (steps, 0)
    shared, scheme = sweep.groups
    configs = [sweep.trial(trial.values) for trial in scheme.trials(0)]
    cells = {(c.train.update, c.loss.kl.sigma, c.optimizer.autoencoder.lr) for c in configs}
    assert cells == {
        (update, sigma, rate)
        for update, rate in (("joint", lr), ("per_term", 0.4 * lr))
        for sigma in (0.1414, 0.2828, 0.5657)
    }, "a batch brings more steps per term, which must be smaller"
    assert {c.loss.kl.control for c in configs} == {"fixed"}
    assert not {"loss.kl.control", "loss.kl.capacity_max"} & {*scheme.nuisances} - {"loss.kl.capacity_max"}
    assert "loss.kl.sigma" in shared.nuisances
