"""What MLflow has been sent of a journal, what waits to be sent, and what MLflow rejected."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.records import ImageRecord, RefusalRecord, TrialRecord
from vaegan_core.evaluation import Point

WHAT_WAS_SENT = (
    *(Meta.PARENT_RUN_ID, Meta.POINTS_CURSOR, Meta.IMAGES_CURSOR),
    *(Meta.ON_FRONT_SENT, Meta.MODELS_SENT, Meta.SUMMARY_SENT, Meta.EVALUATIONS_SENT),
    Meta.QUESTIONS_SENT,
)


class Outbox:
    """A journal as its delivery to MLflow sees it. Only the delivering process writes here."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.db = journal.db

    # --- Trials and their files ---------------------------------------------------------------------------------------

    def out_of_step(self) -> list[TrialRecord]:
        """Trials without a run, or whose outcome differs from the one MLflow was sent, by number."""
        rows = self.db.execute("SELECT * FROM trials WHERE synced != outcome OR run_id IS NULL ORDER BY number")
        return [TrialRecord.of(row) for row in rows]

    def set_run_id(self, trial: int, run_id: str) -> None:
        self.db.execute("UPDATE trials SET run_id = ? WHERE number = ?", (run_id, trial))

    def set_synced(self, trial: TrialRecord) -> None:
        """MLflow has the trial's outcome, unless the trial has gone on or ended meanwhile: that is still to come."""
        self.db.execute(
            "UPDATE trials SET synced = ? WHERE number = ? AND ended IS ?", (trial.outcome, trial.number, trial.ended)
        )

    def changed_files(self) -> list[tuple[TrialRecord, int]]:
        """Trials with a run whose configuration or error changed since it was sent, and the version to send."""
        rows = self.db.execute(
            "SELECT * FROM trials WHERE files != files_sent AND run_id IS NOT NULL ORDER BY number"
        ).fetchall()
        return [(TrialRecord.of(row), row["files"]) for row in rows]

    def set_files_sent(self, trial: int, version: int) -> None:
        self.db.execute("UPDATE trials SET files_sent = ? WHERE number = ?", (version, trial))

    def resend(self, trial: int) -> None:
        """Has everything of a trial sent again, except points, images and weights."""
        self.db.execute("UPDATE trials SET synced = '', files = files + 1 WHERE number = ?", (trial,))

    # --- Points and images --------------------------------------------------------------------------------------------

    def points_after(self, cursor: int, limit: int) -> list[tuple[int, int, Point]]:
        """(id, trial, point) of points with an id above `cursor`, by id; of a sweep in a storage, those that it has."""
        stored = self.journal.meta(Meta.STORAGE, "")
        last = int(self.journal.meta(Meta.SHIPPED_POINTS, "0")) if stored else None
        rows = self.db.execute(
            "SELECT * FROM points WHERE id > ? AND (? IS NULL OR id <= ?) ORDER BY id LIMIT ?",
            (cursor, last, last, limit),
        )
        return [(row["id"], row["trial"], _point(row)) for row in rows]

    def point(self, id: int) -> Point:
        return _point(self.db.execute("SELECT * FROM points WHERE id = ?", (id,)).fetchone())

    def undelivered(self) -> int:
        """Number of curve points not yet sent, excluding rejected ones."""
        cursor = int(self.journal.meta(Meta.POINTS_CURSOR, "0"))
        last = self.db.execute("SELECT COALESCE(MAX(id), 0) FROM points").fetchone()[0]
        passed_over = self.db.execute(
            "SELECT COUNT(*) FROM points WHERE id <= ? AND trial IN (SELECT number FROM trials WHERE run_id IS NULL)",
            (cursor,),
        ).fetchone()[0]
        return int(last) - cursor + int(passed_over)

    def passed_over(self, trial: int) -> tuple[list[tuple[int, Point]], list[ImageRecord]]:
        """What the cursors have passed of a trial that had no run: its points, each with its id, and its images."""
        points = self.db.execute(
            "SELECT * FROM points WHERE trial = ? AND id <= ? ORDER BY id",
            (trial, int(self.journal.meta(Meta.POINTS_CURSOR, "0"))),
        )
        images = self.db.execute(
            "SELECT * FROM images WHERE trial = ? AND id <= ? AND png IS NOT NULL ORDER BY id",
            (trial, int(self.journal.meta(Meta.IMAGES_CURSOR, "0"))),
        )
        return [(row["id"], _point(row)) for row in points], [ImageRecord.of(row) for row in images]

    def unsent(self) -> list[str]:
        """What MLflow does not have and has not rejected, in words; empty when it has everything."""
        images = self.db.execute(
            "SELECT COUNT(*) FROM images WHERE png IS NOT NULL "
            "AND id NOT IN (SELECT ref FROM set_aside WHERE kind = 'image')"
        ).fetchone()[0]
        counts = {
            "outcome": len(self.out_of_step()),
            "configuration": self.db.execute("SELECT COUNT(*) FROM trials WHERE files != files_sent").fetchone()[0],
            "image grid": images,
            "curve point": self.undelivered(),
        }
        return [f"{count:,} {what}{'s' * (count > 1)}" for what, count in counts.items() if count]

    def forget(self) -> None:
        """Has everything sent again, except images, which have left the journal: MLflow does not have the sweep."""
        with self.journal.transaction() as db:
            db.execute("UPDATE trials SET run_id = NULL, synced = '', files_sent = 0")
            db.execute("DELETE FROM set_aside")
            db.executemany("DELETE FROM meta WHERE key = ?", ((key,) for key in WHAT_WAS_SENT))

    def images_after(self, cursor: int, limit: int) -> list[ImageRecord]:
        """Unsent images with an id above `cursor`, by id."""
        rows = self.db.execute(
            "SELECT * FROM images WHERE id > ? AND png IS NOT NULL ORDER BY id LIMIT ?", (cursor, limit)
        )
        return [ImageRecord.of(row) for row in rows]

    def image(self, id: int) -> ImageRecord:
        return ImageRecord.of(self.db.execute("SELECT * FROM images WHERE id = ?", (id,)).fetchone())

    def discard_image(self, id: int) -> None:
        """Frees the space of an image that MLflow has."""
        with self.journal.transaction() as db:
            db.execute("UPDATE images SET png = NULL WHERE id = ?", (id,))
            db.execute("DELETE FROM set_aside WHERE kind = 'image' AND ref = ?", (id,))

    # --- What MLflow rejected -----------------------------------------------------------------------------------------

    def set_aside(self, records: Iterable[RefusalRecord]) -> None:
        """Notes what was rejected, so that it holds up nothing else."""
        with self.journal.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO set_aside (trial, kind, ref, what, reason) VALUES (?, ?, ?, ?, ?)",
                ((each.trial, each.kind, each.ref, each.what, each.reason) for each in records),
            )

    def refused(self) -> list[RefusalRecord]:
        """What MLflow rejected and has not accepted since."""
        rows = self.db.execute("SELECT * FROM set_aside ORDER BY trial, kind, ref")
        return [RefusalRecord.of(row) for row in rows]

    def accepted(self, records: Iterable[RefusalRecord]) -> None:
        """Strikes off what MLflow accepted after all."""
        with self.journal.transaction() as db:
            db.executemany(
                "DELETE FROM set_aside WHERE trial = ? AND kind = ? AND ref = ?",
                ((each.trial, each.kind, each.ref) for each in records),
            )


def _point(row: sqlite3.Row) -> Point:
    return Point(row["key"], row["step"], row["value"], row["time"])
