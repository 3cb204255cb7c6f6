"""A sweep that lives in a bucket outlasts the machine of its driver, with nothing of that machine left."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from drivers import kill_tree, start, steps_done, wait_until
from servers import S3, MlflowServer
from stores import assert_agreement, open_stores
from sweep_files import NAME, prepare, vaegan

from search.journal.journal import Journal
from search.names import STORAGE_AWAY
from search.storage.lease import EXPIRY_SECONDS
from search.storage.store import Store

pytestmark = pytest.mark.long


@pytest.fixture
def bucket(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of a bucket, which commands reach that the tests type."""
    for name, value in s3.environment.items():
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3" if name == "MLFLOW_S3_ENDPOINT_URL" else name, value)
    return f"s3://{s3.bucket}/{tmp_path.name}"


@pytest.fixture
def tracking(sqlite_server: MlflowServer, tmp_path: Path) -> dict[str, str]:
    """MLflow on a third machine."""
    return {"tracking__uri": sqlite_server.uri, "tracking__experiment": tmp_path.name}


def shipped(bucket: str) -> bool:
    """Whether more than the beginning of the journal is in the storage."""
    return any("/journal/" in key and not key.endswith("base.gz") for key in Store(bucket).keys("sweeps"))


def mismatches(journal: Journal) -> int:
    return int(journal.db.execute("SELECT SUM(mismatches) FROM attempts").fetchone()[0] or 0)


@pytest.mark.timeout(600)
def test_another_machine_goes_on_where_the_first_one_was_lost(
    bucket: str, tracking: dict[str, str], frame_set_dir: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    prepare(first, frame_set_dir, base__train__steps=240, budget__trials=5, **tracking)
    process = start(first, "sweep", "sweep.yaml", "--storage", bucket)
    wait_until(lambda journal: steps_done(journal) >= 140 and shipped(bucket), first, process)
    kill_tree(process, first)
    shutil.rmtree(first)
    second.mkdir()
    done = vaegan(second, "resume", NAME, "--storage", bucket)
    assert f"The journal was restored from {bucket}" in done.stdout
    assert "will resume from checkpoints" in done.stdout
    stores = open_stores(second, uri=tracking["tracking__uri"])
    assert_agreement(stores)
    assert mismatches(stores.journal) == 0, "what was repeated has the same values"
    assert [trial.outcome for trial in stores.journal.trials() if trial.outcome == "failed"] == []
    left = [key for key in Store(bucket).keys("sweeps") if "/trials/" in key]
    assert {Path(key).name for key in left} == {"model.safetensors"}, "no state is left, and the best weights are"


@pytest.mark.timeout(600)
def test_a_driver_that_was_taken_for_dead_writes_nothing_when_it_wakes(
    bucket: str, tracking: dict[str, str], frame_set_dir: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    longer = {"base__train__steps": 600, "base__evaluate__every": 60, "points": {}, "scheduler": {"name": "none"}}
    lasting = {"space__optimizer.autoencoder.lr": [1e-3], "budget__trials": 4}  # it must outlast the second's question
    prepare(first, frame_set_dir, **longer, **lasting, **tracking)
    process = start(first, "sweep", "sweep.yaml", "--storage", bucket)
    wait_until(lambda journal: steps_done(journal) >= 40, first, process)
    second.mkdir()
    refused = vaegan(second, "resume", NAME, "--storage", bucket, check=False)
    assert refused.returncode == 2
    assert "is running the sweep in" in refused.stderr
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(EXPIRY_SECONDS + 5)
    vaegan(second, "resume", NAME, "--storage", bucket)
    before = {key: Store(bucket).read(key) for key in Store(bucket).keys("sweeps")}
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(30) == STORAGE_AWAY
    assert "has lost the sweep in" in (first / "log.txt").read_text()
    assert {key: Store(bucket).read(key) for key in Store(bucket).keys("sweeps")} == before
    assert_agreement(open_stores(second, uri=tracking["tracking__uri"]))
