"""Slots fill at once when a sweep begins, however long a worker takes to start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sweep_files import NAME, environment, prepare_steady, vaegan

from search.journal.journal import Journal
from search.paths import JOURNAL_FILE

SLOW_START = """
import os, pathlib, sys, time

class Meeting:
    def find_spec(self, name, path=None, target=None):
        if name == "search.running.trial":
            sys.meta_path.remove(self)
            here = pathlib.Path(os.environ["MEETING"])
            (here / str(os.getpid())).touch()
            late = time.monotonic() + 60
            while len(list(here.iterdir())) < 2:
                if time.monotonic() > late:
                    (here / "alone").touch()
                time.sleep(0.1)

if any(part.endswith("default_worker.py") for part in sys.orig_argv):
    sys.meta_path.insert(0, Meeting())
"""
"""Has a worker's start, which takes seconds, last until another one starts as well."""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has one slot")
def test_no_worker_waits_for_the_start_of_another(frame_set_dir: Path, tmp_path: Path) -> None:
    prepare_steady(tmp_path, frame_set_dir, budget={"trials": 2}, resources={"cpu": 1})
    slow, meeting = tmp_path / "slow", tmp_path / "meeting"
    slow.mkdir()
    meeting.mkdir()
    (slow / "sitecustomize.py").write_text(SLOW_START)
    paths = os.pathsep.join([str(slow), *filter(None, [environment(tmp_path).get("PYTHONPATH")])])
    vaegan(tmp_path, "sweep", "sweep.yaml", PYTHONPATH=paths, MEETING=str(meeting))
    assert len(list(meeting.iterdir())) == 2, "both workers were starting at the same time, and nobody was alone"
    journal = Journal(tmp_path / "runs" / "sweeps" / NAME / JOURNAL_FILE)
    assert [trial.outcome for trial in journal.trials()] == ["completed"] * 2
    journal.close()
