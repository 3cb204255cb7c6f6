"""What a rerun compares itself with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from search.local.plan import read_points
from vaegan_core.evaluation import PIXEL_MSE


class Growing:
    """A client to whose run another 100 steps are delivered between the first curve that is read and the second."""

    def __init__(self) -> None:
        self.steps = 100

    def get_metric_history(self, _: str, key: str) -> list[Any]:
        every = 25 if key.startswith("train/") else 50
        history = [SimpleNamespace(step=at, value=1 / at, timestamp=at) for at in range(every, self.steps + 1, every)]
        self.steps = 200
        return history


@pytest.mark.parametrize(("outcome", "last"), [("running", {100}), ("completed", {100, 200})])
def test_curves_of_a_running_original_end_together(outcome: str, last: set[int]) -> None:
    metrics = dict.fromkeys(("train/autoencoder", "train/pixel", PIXEL_MSE), 0.0)
    run: Any = SimpleNamespace(
        data=SimpleNamespace(metrics=metrics, tags={"outcome": outcome}), info=SimpleNamespace(run_id="run")
    )
    client: Any = Growing()
    points = read_points(client, run)
    assert {max(step for key, step in points if key == each) for each in metrics} == last
