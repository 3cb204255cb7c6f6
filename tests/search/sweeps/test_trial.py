"""The single trial that ships is what it says: a point of the demo."""

from __future__ import annotations

from pathlib import Path

from search.local.train import load_single

SHIPPED = Path(__file__).parents[3] / "search" / "sweeps"


def test_the_trial_that_ships_is_the_demo_s_first_point_and_takes_the_overrides_that_it_names() -> None:
    trial = load_single(SHIPPED / "trial.yaml", [], None)
    assert trial == load_single(SHIPPED / "demo.yaml", [], "z-like-the-prior")
    changed = load_single(SHIPPED / "trial.yaml", ["loss.kl.sigma=0.2", "train.steps=2000"], None)
    assert (changed.loss.kl.control, changed.train.steps) == ("fixed", 2000)
    assert changed.dump()["loss"]["kl"]["sigma"] == 0.2
