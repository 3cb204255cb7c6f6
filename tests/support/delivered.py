"""A sweep's journal as a driver would have written it, and what a server holds of it afterwards."""

from __future__ import annotations

import hashlib
import io
import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from stores import assert_same_points
from sweeps import BASELINES, sweep_data

from search.config.load import parse_sweep
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.outbox import Outbox
from search.names import Kind, Tag
from search.names import Outcome as Final
from search.tracking.delivery import Delivery, Listener
from search.tracking.reader import image_paths
from search.tracking.runs import search_all
from search.tracking.writer import MlflowWriter
from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE, Evaluation, Outcome, Point
from vaegan_core.strict_yaml import parse_yaml

CURVES = ("train/kl", "train/pixel", PIXEL_MSE, LAYOUT_FD)
STEPS = (40, 80, 120)
NUM_POINTS = len(CURVES) * len(STEPS) * 10


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 16), (seed % 256, 80, 160)).save(buffer, format="PNG")
    return buffer.getvalue()


def report(trial: int, step: int, outcome: Outcome = "running") -> Evaluation:
    """An evaluation with ten points of every curve since the last evaluation, and one image."""
    steps = range(step - 36, step + 1, 4)
    points = tuple(Point(k, s, math.sin(s + trial) + len(k), 1_700_000_000_000 + s) for k in CURVES for s in steps)
    metrics = {PIXEL_MSE: 0.1 + 1 / step, LAYOUT_FD: 5.0 + trial}
    return Evaluation(step, outcome, metrics, points, {"prior_samples": png(step)}, "", {"kl_explosion": False})


def make_sweep_directory(directory: Path, experiment: str, num_trials: int = 2) -> Path:
    """A sweep whose first trial is completed and whose others run."""
    data = sweep_data(name="toy", tracking={"experiment": experiment}, budget={"trials": num_trials})
    sweep = parse_sweep(data, "toy")
    journal = Journal.create(
        directory / "toy" / "journal.db",
        id=hashlib.sha256(experiment.encode()).hexdigest()[:32],
        sweep=sweep.config.to_yaml(),
        frames="f" * 16,
        baselines=json.dumps(BASELINES),
    )
    for number in range(num_trials):
        journal.add_trial(number, {"optimizer.autoencoder.lr": 0.001 * (number + 1)}, "a: 1\n", "random")
        attempt = journal.start_attempt(number)
        journal.start_trial(number, attempt, f"trial: {number}\n", {"host": "h", "device": "d"})
        for step in STEPS:
            journal.add_evaluation(number, report(number, step))
    journal.end_trial(0, Final.COMPLETED)
    journal.close()
    return directory / "toy"


def open_journal(directory: Path) -> Journal:
    return Journal(directory / "journal.db")


def write(directory: Path, uri: str) -> MlflowWriter:
    """The writer that the delivering process uses, for the sweep in `directory`."""
    journal = open_journal(directory)
    return MlflowWriter(parse_sweep(parse_yaml(journal.meta(Meta.SWEEP)), "toy"), journal, directory, uri)


@contextmanager
def delivering(directory: Path, said: list[str]) -> Iterator[Delivery]:
    """A Delivery at work in a thread, finished at the end of the block."""
    ready = threading.Event()
    held: list[Delivery] = []

    def work() -> None:
        held.append(Delivery(directory, said.append, Listener()))  # SQLite connections stay in their thread
        ready.set()
        held[0].run()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(30)
    yield held[0]
    held[0].finishing.set()
    thread.join(60)
    assert not thread.is_alive(), f"it did not finish; it said {said}"


def runs_of(client: MlflowClient, experiment: str, kind: str = Kind.TRIAL) -> list[Run]:
    """Runs of a kind, by trial number."""
    known = client.get_experiment_by_name(experiment)
    assert known is not None
    runs = search_all(client, known.experiment_id, f"tags.`{Tag.KIND}` = '{kind}'")
    return sorted(runs, key=lambda run: int(run.data.tags.get(Tag.TRIAL, -1)))


def assert_delivered(directory: Path, client: MlflowClient, experiment: str) -> None:
    """One run per trial, every point and every image once, nothing rejected."""
    journal = open_journal(directory)
    trials = journal.trials()
    assert len(runs_of(client, experiment, Kind.SWEEP)) == 1
    assert [run.info.run_id for run in runs_of(client, experiment)] == [trial.run_id for trial in trials]
    assert Outbox(journal).undelivered() == 0
    assert Outbox(journal).refused() == []
    for trial in trials:
        assert_same_points(journal, client, trial.number)
        assert sorted(image_paths(client, str(trial.run_id))) == [("prior_samples", step) for step in STEPS]
        assert len(client.list_artifacts(str(trial.run_id), "images")) == 2 * len(STEPS)
        text = Path(client.download_artifacts(str(trial.run_id), "config.yaml")).read_text()
        assert text == f"trial: {trial.number}\n"
    journal.close()
