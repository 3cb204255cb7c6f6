"""Slots fill at once when a sweep begins, however long a worker takes to start, and none starts in vain."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sweep_files import NAME, environment, prepare_steady, vaegan

from search.journal.journal import Journal
from search.paths import JOURNAL_FILE

SLOW_START = """
import os, pathlib, sqlite3, sys, time

def others():
    return len(list(here.iterdir())) > 1

def trials_have_ended():
    db = sqlite3.connect("file:runs/sweeps/small/journal.db?mode=ro", uri=True)
    return db.execute("SELECT count(*) FROM trials WHERE outcome = 'completed'").fetchone()[0] >= 2

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "search.running.trial":
            sys.meta_path.remove(self)
            first = not list(here.iterdir())
            (here / str(os.getpid())).touch()
            wait = others if os.environ["UNTIL"] == "another starts" else lambda: first or trials_have_ended()
            late = time.monotonic() + 60
            while not wait() and time.monotonic() < late:
                time.sleep(0.1)
            if time.monotonic() > late:
                (here / "in vain").touch()

if any(part.endswith("default_worker.py") for part in sys.orig_argv):
    here = pathlib.Path(os.environ["STARTS"])
    sys.meta_path.insert(0, Slow())
"""
"""Has a worker's start, which takes seconds, last until another one starts as well, or, but for the first worker's,
until some trials have ended."""


@pytest.fixture
def starts(tmp_path: Path) -> Path:
    """Has a file for each worker that has started to import what trains."""
    slow, starts = tmp_path / "slow", tmp_path / "starts"
    slow.mkdir()
    starts.mkdir()
    (slow / "sitecustomize.py").write_text(SLOW_START)
    return starts


def sweep(directory: Path, starts: Path, until: str) -> list[str]:
    """Outcomes of the trials of a sweep whose workers start slowly."""
    paths = [str(directory / "slow"), *filter(None, [environment(directory).get("PYTHONPATH")])]
    vaegan(directory, "sweep", "sweep.yaml", PYTHONPATH=os.pathsep.join(paths), STARTS=str(starts), UNTIL=until)
    journal = Journal(directory / "runs" / "sweeps" / NAME / JOURNAL_FILE)
    outcomes = [str(trial.outcome) for trial in journal.trials()]
    journal.close()
    return outcomes


two_cores = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has one slot")


@two_cores
def test_no_worker_waits_for_the_start_of_another(starts: Path, frame_set_dir: Path, tmp_path: Path) -> None:
    prepare_steady(tmp_path, frame_set_dir, budget={"trials": 2}, resources={"cpu": 1})
    assert sweep(tmp_path, starts, "another starts") == ["completed"] * 2
    assert len(list(starts.iterdir())) == 2, "both workers were starting at the same time, and nobody was alone"


@two_cores
def test_no_worker_starts_to_be_ended_before_it_has_begun(starts: Path, frame_set_dir: Path, tmp_path: Path) -> None:
    """While one slot's worker is starting, the trials that the other slot ends take nothing from it."""
    prepare_steady(tmp_path, frame_set_dir, budget={"trials": 10}, resources={"cpu": 1})
    assert sweep(tmp_path, starts, "trials have ended") == ["completed"] * 10
    assert len(list(starts.iterdir())) == 2
