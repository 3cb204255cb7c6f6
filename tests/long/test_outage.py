"""A sweep of real trials whose MLflow server is down for half a minute, twice."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from drivers import start, steps_done, wait_until
from servers import MlflowServer
from stores import assert_agreement, open_stores
from sweep_files import NAME, prepare

from search.journal.journal import Journal
from search.journal.outbox import Outbox

pytestmark = pytest.mark.long

DOWN_SECONDS = 30
AGAIN = "can be written to again"


@pytest.mark.timeout(900)
def test_training_goes_on_without_the_server_and_every_point_arrives_once(frame_set_dir: Path, tmp_path: Path) -> None:
    server = MlflowServer(tmp_path)
    prepare(
        tmp_path,
        frame_set_dir,
        base__train__steps=1800,
        base__train__log_every=10,
        base__evaluate__every=60,
        scheduler={"name": "none"},
        budget={"trials": 7},
        tracking={"uri": server.uri},
    )
    with server:
        process = start(tmp_path, "sweep", "sweep.yaml")
        for number, goal in enumerate((300, 3000)):
            wait_until(lambda journal, goal=goal: steps_done(journal) >= goal, tmp_path, process)
            wait_until(lambda _, number=number: said(tmp_path).count(AGAIN) == number, tmp_path, process)
            with server.outage():
                before = steps(tmp_path)
                time.sleep(DOWN_SECONDS)
                during = steps(tmp_path) - before
            assert process.poll() is None, "the sweep must outlast the outage"
            assert during > 100, "training must go on meanwhile"
        assert process.wait(timeout=400) == 0, said(tmp_path)
        assert said(tmp_path).count("cannot be written to. Training goes on") == 2
        assert said(tmp_path).count(AGAIN) == 2
        stores = open_stores(tmp_path, uri=server.uri)
        assert_agreement(stores)
        assert Outbox(stores.journal).refused() == []


def said(directory: Path) -> str:
    return (directory / "log.txt").read_text()


def steps(directory: Path) -> int:
    journal = Journal(directory / "runs" / "sweeps" / NAME / "journal.db")
    try:
        return steps_done(journal)
    finally:
        journal.close()
