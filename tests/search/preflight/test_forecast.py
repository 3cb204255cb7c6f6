"""What `vaegan check --probe` makes of what it has measured."""

from __future__ import annotations

import pytest
from asked import BASE, NORM, asking
from sweeps import make_sweep

from search.preflight import forecast

KNOWN = forecast.Probe("a device", 0.0, 3600.0, 10**9, 10**8, 10**5, 40)
"""An hour for a validation, and no time for steps."""


def test_a_forecast_counts_the_validation_at_the_last_step() -> None:
    base = make_sweep().config.base | {"train": {"steps": 36}, "evaluate": {"every": 10**6, "also_at": [12]}}
    changes = {"scheduler": {"name": "none"}, "budget": {"trials": 4}, "resources": {"max_concurrent": 1}}
    sweep = make_sweep(base=base, confirm={"top": 1, "seeds": 2}, **changes)
    assert "12.0 hours of wall time expected, 12.0 hours at most" in list(forecast.forecast(sweep, KNOWN))[1]
    evaluations = 6 * (2 + 36 / 10**6)
    disk = forecast.disk_forecast(sweep, 1, KNOWN)
    assert disk == pytest.approx(10**9 + 2 * 3 * 10**8 + 40 * 6 * 36 / 20 * 120 + evaluations * 10**5 * 4)


def test_a_forecast_counts_the_validations_of_as_many_blocks_as_there_may_be() -> None:
    base = BASE | {"train": {"steps": 36}, "evaluate": {"every": 10**6}}
    sweep = asking({"norm": NORM}, {"at_most": 16}, base=base, resources={"max_concurrent": 1})
    lines = list(forecast.forecast(sweep, KNOWN))
    assert "16.0 hours of wall time expected, 32.0 hours at most" in lines[1]
    assert "A block of all questions takes 120 minutes" in lines[2]


@pytest.mark.parametrize(
    ("gpu", "gpu_hours"), [(1, "; 4.0 GPU-hours expected, 4.0"), (0.5, "; 2.0 GPU-hours"), (0, "2.0 hours at most.")]
)
def test_gpu_hours_are_forecast_as_the_budget_counts_them(
    gpu: float, gpu_hours: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    base = make_sweep().config.base | {"evaluate": {"every": 480}}
    changes = {"scheduler": {"name": "none"}, "budget": {"trials": 4, "gpu_hours": 9}}
    sweep = make_sweep(base=base, resources={"gpu": gpu, "max_concurrent": 2}, **changes)
    line = list(forecast.forecast(sweep, KNOWN))[1]
    assert "Forecast with 2 at a time: 2.0 hours" in line
    assert gpu_hours in line


@pytest.mark.parametrize(("trials", "checkpoints"), [(100, 1 + 2 * 4), (5, 1 + 5)])
def test_disk_has_room_for_the_checkpoints_of_stopped_trials_that_wait(trials: int, checkpoints: int) -> None:
    scheduler = {"name": "asha", "min_steps": 120, "reduction_factor": 2}
    wait, end = (
        make_sweep(scheduler=scheduler | {"second_chance": waits}, budget={"trials": trials}) for waits in (True, False)
    )
    assert wait.rungs == (120, 240)
    more = forecast.disk_forecast(wait, 1, KNOWN) - forecast.disk_forecast(end, 1, KNOWN)
    assert more == pytest.approx((checkpoints - 1) * KNOWN.checkpoint_bytes)
