"""How many trials fit at once: a share of a GPU is of one GPU."""

from __future__ import annotations

import pytest
from sweeps import make_sweep

from search.running.resources import concurrent_trials


@pytest.mark.parametrize(
    ("share", "gpus", "slots"), [(0.4, 2, 4), (0.6, 2, 2), (1 / 3, 2, 6), (0.1, 1, 10), (1, 3, 3), (2, 3, 1), (2, 1, 1)]
)
def test_what_is_left_of_one_gpu_helps_no_trial_on_another(share: float, gpus: int, slots: int) -> None:
    sweep = make_sweep(resources={"cpu": 1, "gpu": share})
    assert concurrent_trials(sweep, {"CPU": 64.0, "GPU": float(gpus)}) == slots
