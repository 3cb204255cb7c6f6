"""A sweep that an earlier version began, and that was cut off, is looked at, resumed and reported by this one."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from old_journals import NAME, unpack
from stores import assert_agreement, open_stores
from sweep_files import vaegan

from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.schema import MIGRATIONS
from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.frame_features import FrameFeatures


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", MIGRATIONS)
def test_an_old_sweep_is_resumed_to_its_end(
    version: int, frame_set_dir: Path, frame_set: FrameSet, frame_features: FrameFeatures, tmp_path: Path
) -> None:
    shutil.copytree(frame_set_dir, tmp_path / "1e3")
    path = unpack(version, tmp_path / "runs" / "sweeps" / NAME / "journal.db")
    journal = Journal(shutil.copytree(path.parent, tmp_path / "copy") / path.name)
    before = {number: journal.points(number) for number in (0, 1, 2)}
    journal.close()
    with closing(sqlite3.connect(path)) as db, db:  # the frame set was captured anew, and maybe on another processor
        for key, value in ((Meta.FRAMES, frame_set.fingerprint), (Meta.FEATURES, frame_features.fingerprint)):
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
    done = vaegan(tmp_path, "resume", NAME)
    assert "3 trials finished, 2 will resume" in done.stdout
    stores = open_stores(tmp_path, NAME)
    assert_agreement(stores)
    assert {number: stores.journal.points(number) for number in before} == before
    assert (path.parent / "report.html").is_file()
