"""How far a sweep is, by what its scheduler lets trials train."""

from __future__ import annotations

import pytest
from sweeps import make_sweep

from search.standings.progress import expected_end

ASHA = {"name": "asha", "min_steps": 100, "reduction_factor": 3}


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 120 + (320 - 120) / 3 + (480 - 320) / 9),
        (60, 120 + (320 - 120) / 3 + (480 - 320) / 9),
        (120, 320 + (480 - 320) / 3),
        (320, 480),
        (480, 480),
    ],
)
def test_a_trial_ends_where_rungs_leave_it_on_average(step: int, expected: float) -> None:
    """Rungs at 100 and 300 of 480 steps are judged at the next validations, 120 and 320."""
    assert expected_end(make_sweep(scheduler=ASHA), step) == pytest.approx(expected)


def test_without_early_stopping_every_trial_ends_at_the_last_step() -> None:
    assert expected_end(make_sweep(scheduler={"name": "none"})) == 480
