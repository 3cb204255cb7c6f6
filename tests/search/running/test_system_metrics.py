from __future__ import annotations

import time

import pytest
import ray
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

from search.running import system_metrics
from search.running.system_metrics import SystemMetrics


class TwoGpus(BaseMetricsMonitor):
    """A monitor of two GPUs, the second twice as busy; the load rises with every sample."""

    samples = 0

    def collect_metrics(self) -> None:
        self.samples += 1
        for gpu in (0, 1):
            self._metrics[f"gpu_{gpu}_utilization_percentage"].append(10.0 * self.samples * (gpu + 1))
        self._metrics["cpu_utilization_percentage"].append(50.0)

    def aggregate_metrics(self) -> dict[str, float]:
        return {key: sum(values) / len(values) for key, values in self._metrics.items()}


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> SystemMetrics:
    monkeypatch.setattr(system_metrics, "make_monitors", lambda: [TwoGpus()])
    monkeypatch.setattr(system_metrics, "SAMPLING_SECONDS", 3600.0)
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: ["1"])
    return SystemMetrics(cuda=False)


def wait_for_monitors(metrics: SystemMetrics) -> None:
    while not metrics._monitors:
        time.sleep(0.01)


def test_a_trial_reports_the_machine_and_the_gpus_that_it_was_given(sampled: SystemMetrics) -> None:
    with sampled:
        wait_for_monitors(sampled)
        points = {point.key: point for point in sampled.points(40)}
    assert {key: point.value for key, point in points.items()} == {
        "system/cpu_utilization_percentage": 50.0,
        "system/gpu_1_utilization_percentage": 20.0,
    }
    assert {point.step for point in points.values()} == {40}


def test_each_report_has_the_mean_since_the_last_one(sampled: SystemMetrics) -> None:
    with sampled:
        wait_for_monitors(sampled)
        sampled.points(40)
        sampled._monitors[0].collect_metrics()
        values = {point.key: point.value for point in sampled.points(80)}
    assert values["system/gpu_1_utilization_percentage"] == (40.0 + 60.0) / 2


def test_the_monitors_are_mlflows_own() -> None:
    monitors = system_metrics.make_monitors()
    for monitor in monitors:
        monitor.collect_metrics()
    found = {key for monitor in monitors for key in monitor.aggregate_metrics()}
    assert {"cpu_utilization_percentage", "system_memory_usage_megabytes", "disk_usage_megabytes"} <= found
