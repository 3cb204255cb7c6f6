"""How long a result holds up the driver on its way to MLflow, and when everything is there: ours, with the journal's
commit, beside Ray's MLflowLoggerCallback, on SQLite and over HTTP."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from methods import UNLIMITED, Ours, changed
from mlflow import MlflowClient
from page import Section
from ray.air.integrations.mlflow import MLflowLoggerCallback
from recording import OBJECTIVES, SWEEP

from search.config.load import load_sweep
from search.journal.meta import Meta
from search.names import Kind
from search.tracking.client import open_client
from search.tracking.tracker import Tracker
from vaegan_core.evaluation import Evaluation, Point

sys.path.append(str(Path(__file__).parents[1] / "support"))
from servers import MlflowServer

TRIALS, RESULTS, METRICS = 2, 200, 20
BASELINES = '{"mean_color_mse": 0.1, "mean_color_layout_fd": 900.0, "floor_layout_fd": 50.0}'
ONE_MS, AIM = 0.001, 20
STORED_SECONDS = 600


def measure(results: int, say: Callable[[str], None]) -> Section:
    rows, blocked = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for store in ("SQLite", "HTTP"):
            for label, run in (("ours", ours), ("Ray's callback", rays)):
                directory = Path(scratch) / f"{store}-{label}"
                directory.mkdir()
                with serving(store, directory) as uri:
                    times, stored = run(uri, directory, results)
                blocked[store, label] = np.mean(times)
                mean, tail = (1000 * each for each in (np.mean(times), np.percentile(times, 99)))
                rows.append([f"{store}, {label}", f"{mean:.2f} ms", f"{tail:.2f} ms", f"{stored:.1f} s"])
                say(f"tracking: {' | '.join(rows[-1])}")
    ratios = {store: blocked[store, "Ray's callback"] / blocked[store, "ours"] for store in ("SQLite", "HTTP")}
    slowest = max(blocked[store, "ours"] for store in ratios)
    return Section(
        "A result on its way to MLflow",
        ["", "driver blocked per result", "99th percentile", "until all is stored"],
        rows,
        [
            f"{METRICS} metrics x {results} results x {TRIALS} trials, one result right after the other. Ours: "
            "scheduler and journal with its commit, while the process that delivers is at work; stored: from the first "
            "result until that process has finished. Ray's: the calls of MLflowLoggerCallback, which return when all "
            "is stored.",
            f"Aims: under 1 ms: {1000 * slowest:.2f} ms, {'reached' if slowest < ONE_MS else 'missed'}; {AIM} times "
            f"less than Ray's: {', '.join(f'{store} {ratio:.0f} times' for store, ratio in ratios.items())}, "
            f"{'reached' if min(ratios.values()) >= AIM else 'missed'}.",
        ],
    )


@contextmanager
def serving(store: str, directory: Path) -> Iterator[str]:
    """A new, empty store; its tables are there."""
    if store == "HTTP":
        with MlflowServer(directory) as server:
            yield server.uri
        return
    uri = f"sqlite:///{directory}/mlflow.db"
    open_client(uri).search_experiments()
    yield uri


def values(rng: np.random.Generator) -> dict[str, float]:
    names = [*OBJECTIVES, *(f"train/curve-{number}" for number in range(METRICS - len(OBJECTIVES)))]
    return dict(zip(names, rng.random(METRICS).tolist(), strict=True))


def ours(uri: str, directory: Path, results: int) -> tuple[list[float], float]:
    """Seconds that each result held up the driver, and from the first until everything was stored."""
    os.environ["MLFLOW_TRACKING_URI"] = uri
    sweep = changed(
        load_sweep(SWEEP, ["scheduler={name: none}"]), sampler={"name": "random"}, budget={"trials": UNLIMITED}
    )
    method = Ours(sweep, directory, slots=TRIALS)
    meta = {"sweep": sweep.config.to_yaml(), "frames": "none", "baselines": BASELINES, Meta.WARM_START: "[]"}
    for key, value in meta.items():
        method.journal.set_meta(key, value)
    for trial in range(TRIALS):
        method.suggest(f"trial-{trial}")
        method.journal.start_trial(trial, 1, "", {"host": "here", "device": "cpu"})
    tracker, rng, times = Tracker(directory, print), np.random.default_rng(0), []
    tracker.start()
    wait_until(lambda: all(trial.synced for trial in method.journal.trials()))
    begun = time.perf_counter()
    for step in range(1, results + 1):
        for trial in range(TRIALS):
            found = values(rng)
            points = tuple(Point(key, step, value, int(time.time() * 1000)) for key, value in found.items())
            metrics = {key: found[key] for key in OBJECTIVES}
            evaluation = Evaluation(step, "running", metrics, points)
            start = time.perf_counter()
            method.receive(f"trial-{trial}", evaluation)
            times.append(time.perf_counter() - start)
    if not tracker.close(STORED_SECONDS, "benchmark"):
        raise RuntimeError("not everything was stored")
    stored = time.perf_counter() - begun
    check_stored(uri, sweep.config.tracking.experiment, f" and tags.`vaegan.kind` = '{Kind.TRIAL}'", results)
    return times, stored


def rays(uri: str, directory: Path, results: int) -> tuple[list[float], float]:  # noqa: ARG001
    callback = MLflowLoggerCallback(tracking_uri=uri, experiment_name="rays")
    callback.setup()
    trials = [Trial(str(number)) for number in range(TRIALS)]
    for trial in trials:
        callback.log_trial_start(trial)
    rng, times = np.random.default_rng(0), []
    begun = time.perf_counter()
    for step in range(1, results + 1):
        for trial in trials:
            result = {"training_iteration": step} | values(rng)
            start = time.perf_counter()
            callback.log_trial_result(step, trial, result)
            times.append(time.perf_counter() - start)
    stored = time.perf_counter() - begun
    check_stored(uri, "rays", "", results)
    return times, stored


class Trial(SimpleNamespace):
    """As much of Tune's as its callback looks at."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, config={})

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self.name)

    def __str__(self) -> str:
        return str(self.name)


def check_stored(uri: str, experiment: str, more: str, results: int) -> None:
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], f"attributes.status != 'SCHEDULED'{more}")
    counts = [len(client.get_metric_history(run.info.run_id, OBJECTIVES[0])) for run in runs]
    if counts != [results] * TRIALS:
        raise RuntimeError(f"expected {results} values of each trial, but found {counts}")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the process that delivers did not begin")
        time.sleep(0.05)
