"""A whole driver under many trials at once: trials that train nothing, but report as often and as much as real ones.

    python tests/benchmarks/slots.py                                  64 slots on this machine, whatever cores it has
    python tests/benchmarks/slots.py --hosts                          on three hosts that it makes, as root, with S3
    python tests/benchmarks/slots.py --cluster auto --storage s3://…  on the cluster that this machine belongs to

Shorter and shorter times between a trial's reports show where the driver saturates. The lag is what a trial waits from
its report to the decision on it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import ray
import yaml
from page import Section
from ray import tune

sys.path.append(str(Path(__file__).parents[1] / "support"))

NAME = "slots"
SLOTS = 64
EVALUATIONS, FIRST_RUNG, CURVES, POINTS_PER_CURVE = 9, 3, 40, 3
SECONDS = (4.0, 2.0, 1.0, 0.5, 0.25)
"""Between two reports of a trial."""
SETTLE_SECONDS, WINDOW_SECONDS = 45.0, 60.0
"""Measured at each pace, after it has settled; the first once every slot has ended a trial, so that no process starts
meanwhile."""


class Lags:
    """The actor that trials tell how long they waited, and that tells them how long to wait between two reports."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.lags: list[tuple[float, float]] = []
        self.workers: set[tuple[str, int]] = set()

    def pace(self, seconds: float) -> None:
        self.seconds = seconds

    def add(self, worker: tuple[str, int], lags: list[tuple[float, float]]) -> float:
        """Takes what a trial has seen, at its end: (when a report was made, seconds until the decision, nan for its
        last, which the next trial answers). Returns the seconds between two reports."""
        if lags:
            self.workers.add(worker)
        self.lags += lags
        return self.seconds

    def num_workers(self) -> int:
        """Number of processes in which a trial has ended."""
        return len(self.workers)

    def read(self) -> list[tuple[float, float]]:
        return self.lags


def waiting_trial(config: dict[str, Any], *, lags: Any, environment: dict[str, str]) -> None:
    """Stands in for `run_trial`; imports nothing heavy, so that 64 of them fit into a small machine."""
    from search.running.messages import Evaluated, Started, to_result
    from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE, Evaluation, Outcome, Point

    random = np.random.default_rng(config["trial"])
    here = environment | {"node": ray.get_runtime_context().get_node_id()}
    tune.report(to_result(Started(config["config"], here, 0)))
    level, worker = np.exp(random.normal(size=2)), (here["node"], os.getpid())
    waited: list[tuple[float, float]] = []
    seconds = ray.get(lags.add.remote(worker, waited))
    try:
        for step in range(1, EVALUATIONS + 1):
            time.sleep(seconds * random.uniform(0.5, 1.5))
            keys = (f"train/curve-{number}" for number in range(CURVES))
            points = tuple(Point(key, step, 1.0, step) for key in keys for _ in range(POINTS_PER_CURVE))
            values = (float(each) for each in level * (1 + 1 / step))
            metrics = dict(zip((PIXEL_MSE, LAYOUT_FD), values, strict=True))
            outcome: Outcome = "completed" if step == EVALUATIONS else "running"
            began = time.time()
            waited.append((began, math.nan))
            tune.report(to_result(Evaluated(Evaluation(step, outcome, metrics, points))))
            waited[-1] = (began, time.time() - began)
    finally:  # a trial that is stopped early, or the last report, which is answered by the next trial, ends here
        lags.add.remote(worker, waited)


def sweep_file(directory: Path, slots: int) -> Path:
    from drawn_frames import drawn

    if not (directory / "frames").exists():
        drawn(directory / "frames", 17, 31)
    path = directory / "slots.yaml"
    data = {
        "name": NAME,
        "base": {
            "frames": str(directory / "frames"),
            "model": {"latent_dim": 4, "width": 4, "depth": 2},
            "loss": {"kl": {"control": "fixed", "sigma": 0.2}},
            "train": {"steps": EVALUATIONS},
            "evaluate": {"every": 1, "num_test": 8, "num_samples": 8},
        },
        "space": {"optimizer.autoencoder.lr": {"low": 1e-4, "high": 1e-2, "log": True}},
        "scheduler": {"name": "asha", "min_steps": FIRST_RUNG, "reduction_factor": 3},
        "budget": {"trials": 10_000 * slots},
        "resources": {"cpu": 1, "gpu": 0},
    }
    path.write_text(yaml.safe_dump(data))
    return path


def run(path: Path, slots: int, paces: Sequence[float], options: list[str]) -> list[dict[str, float]]:
    """Numbers of one sweep in this process, for each time between two reports."""
    from search.cli import main
    from search.provenance import describe_environment
    from vaegan_core.config.trial import parse_trial
    from vaegan_core.training.resolve import resolve

    lags: list[Any] = []
    found: list[dict[str, float]] = []
    environment = describe_environment(resolve(parse_trial(yaml.safe_load(path.read_text())["base"])))
    with_parameters, fit = tune.with_parameters, tune.Tuner.fit

    def waiting(_: object, **parameters: Any) -> Any:  # noqa: ARG001
        lags.append(ray.remote(Lags).options(num_cpus=0).remote(paces[0]))
        return with_parameters(waiting_trial, lags=lags[0], environment=environment)

    def fitted(self: tune.Tuner) -> Any:
        thread = threading.Thread(target=lambda: found.extend(watch(lags[0], slots, paces)))
        thread.start()
        ended = fit(self)
        thread.join()
        return ended

    init = ray.init if "--cluster" in options else partial(ray.init, num_cpus=slots)
    sys.argv = ["vaegan", "sweep", str(path), *options]
    here = (patch.object(ray, "init", init), patch.object(tune, "with_parameters", waiting))
    with here[0], here[1], patch.object(tune.Tuner, "fit", fitted), suppress(SystemExit):
        main()
    return found


def watch(lags: Any, slots: int, paces: Sequence[float]) -> Iterator[dict[str, float]]:
    """Sets one pace after the other and measures it; stops the sweep afterwards."""
    from search.journal.sweeps import directory_of, request_stop

    own = psutil.Process()
    while ray.get(lags.num_workers.remote()) < slots:
        time.sleep(0.5)
    for seconds in paces:
        ray.get(lags.pace.remote(seconds))
        time.sleep(SETTLE_SECONDS)
        began, cpu = time.time(), sum(own.cpu_times()[:2])
        time.sleep(WINDOW_SECONDS)
        cpu, ended = sum(own.cpu_times()[:2]) - cpu, time.time()
        time.sleep(EVALUATIONS * max(paces))  # trials tell at their end, and a saturated driver holds them up
        waited = [lag for made, lag in ray.get(lags.read.remote()) if began <= made <= ended]
        yield {
            "seconds": seconds,
            "rate": len(waited) / (ended - began),
            "median": float(np.nanmedian(waited)),
            "tail": float(np.nanquantile(waited, 0.99)),
            "cpu": cpu / (ended - began),
        }
    request_stop(directory_of(NAME))


def measure(slots: int, paces: Sequence[float], options: list[str], directory: Path) -> Section:
    """One sweep at one pace after the other, in a process of its own."""
    words = [sys.executable, __file__, "--slots", f"{slots}", "--directory", f"{directory}"]
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{directory}/mlflow.db", "OMP_NUM_THREADS": "1"} | os.environ
    done = subprocess.run(
        [*words, "--seconds", *map(str, paces), *options],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    rows = [
        [
            f"{found['seconds']:g} s",
            f"{slots / found['seconds']:.0f}",
            f"{found['rate']:.0f}",
            f"{1000 * found['median']:.0f} ms",
            f"{1000 * found['tail']:.0f} ms",
            f"{found['cpu']:.0%}",
        ]
        for found in json.loads(done.stdout.strip().splitlines()[-1])
    ]
    return Section(
        f"One driver and {slots} trials at a time",
        ["between reports", "reports/s if nobody waited", "reports/s", "lag, median", "lag, 99 %", "driver, of a core"],
        rows,
        [
            f"Trials of up to {EVALUATIONS} evaluations, {CURVES * POINTS_PER_CURVE} curve points each; TPE, ASHA from "
            f"evaluation {FIRST_RUNG}; {WINDOW_SECONDS:.0f} s at each pace, after every slot had ended its first trial."
        ],
    )


def on_hosts(slots: int, paces: Sequence[float]) -> str:
    """What this script says on the head of a cluster whose two workers have half of the slots each."""
    from hosts import BUCKET, hosts_up
    from source_tree import ROOT

    with tempfile.TemporaryDirectory() as state, hosts_up(Path(state)) as hosts:
        for host in ("w1", "w2"):
            hosts.restart_worker(host, cpus=slots // 2)
        seconds = " ".join(map(str, paces))
        words = f"{__file__} --slots {slots} --seconds {seconds} --cluster auto --storage {BUCKET}"
        return hosts.on("head", f"PYTHONPATH={ROOT} python {words}", timeout=3600)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=SLOTS)
    parser.add_argument("--seconds", type=float, nargs="*", default=SECONDS)
    parser.add_argument("--hosts", action="store_true")
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    arguments, options = parser.parse_known_args()
    if arguments.directory:
        found = run(sweep_file(arguments.directory, arguments.slots), arguments.slots, arguments.seconds, options)
        print(json.dumps(found), flush=True)
        return
    if arguments.hosts:
        print(on_hosts(arguments.slots, arguments.seconds))
        return
    with tempfile.TemporaryDirectory() as directory:
        print(measure(arguments.slots, arguments.seconds, options, Path(directory)).markdown())


if __name__ == "__main__":
    main()
