"""What `vaegan check` says of a sweep, where that needs no frames."""

from __future__ import annotations

from sweeps import make_sweep

from search.preflight.describe import _plan


def test_a_grid_ends_where_it_has_no_more_points() -> None:
    space = {"model.width": [8, 16], "loss.kl": {"one_of": {"fixed": {"sigma": [0.1, 0.2]}}}}
    plan = list(_plan(make_sweep(space=space, sampler={"name": "grid"})))
    assert "Trials: 4 (0 of them named points), 480 steps each, rungs at 120, 240." in plan
    assert "It ends after 4 trials." in plan
