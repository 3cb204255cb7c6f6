"""What a trial's machine does while it trains: MLflow's own system metrics, which its web pages show apart.

MLflow's monitor would write to the server from each worker. Here its readings travel with the reports, as every curve
does, so an unreachable server costs none of them.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

import ray
import torch

from search.names import Prefix
from vaegan_core.evaluation import Point

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

SAMPLING_SECONDS = 10.0
GPU_PEAK = f"{Prefix.SYSTEM}gpu_memory_peak_megabytes"


class SystemMetrics:
    """Samples the machine in a thread of its own, for as long as it is entered.

    `points` gives the means since the last call: CPU, memory, disk, network, of each GPU that Ray gave this worker
    memory, utilization and power, and this trial's own peak of GPU memory.
    """

    def __init__(self, *, cuda: bool) -> None:
        """`cuda`: whether the trial is on a GPU; a question to one would take 300 MB of its memory for the process."""
        self._cuda = cuda
        self._monitors: list[BaseMetricsMonitor] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="system-metrics", daemon=True)

    def __enter__(self) -> SystemMetrics:
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()

    def points(self, step: int) -> tuple[Point, ...]:
        """Curve points at `step`; none before the monitors are loaded."""
        now = int(time.time() * 1000)
        with self._lock:
            for monitor in self._monitors:
                monitor.collect_metrics()
            found = [item for monitor in self._monitors for item in monitor.aggregate_metrics().items()]
            for monitor in self._monitors:
                monitor.clear_metrics()
        points = [Point(f"{Prefix.SYSTEM}{key}", step, float(value), now) for key, value in found if _is_ours(key)]
        if self._cuda:
            points.append(Point(GPU_PEAK, step, torch.cuda.max_memory_allocated() / 1e6, now))
        return tuple(points)

    def _sample(self) -> None:
        monitors = make_monitors()
        with self._lock:
            self._monitors = monitors
        while not self._ended.wait(SAMPLING_SECONDS):
            with self._lock:
                for monitor in self._monitors:
                    monitor.collect_metrics()


def make_monitors() -> list[BaseMetricsMonitor]:
    """MLflow's monitors of CPU and memory, disk, network, and of NVIDIA GPUs where there are any."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor  # takes a second to import
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(RuntimeError):  # no NVIDIA driver
        monitors.append(GPUMonitor())
    return monitors


def _is_ours(key: str) -> bool:
    """Whether a reading is of the machine, or of a GPU that Ray gave this worker."""
    if not key.startswith("gpu_"):
        return True
    return key.split("_")[1] in {str(gpu) for gpu in ray.get_gpu_ids()}
