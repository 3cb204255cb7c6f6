"""Files of trials that are kept in the sweep's storage: which one counts, and which nobody needs any more."""

from __future__ import annotations

from collections.abc import Iterable

from search.journal.database import Database
from search.journal.records import SAVED_COLUMNS, FileKind, SavedRecord
from search.names import UNFINISHED_OUTCOMES

_UNFINISHED = ", ".join(f"'{outcome}'" for outcome in UNFINISHED_OUTCOMES)
_LATEST = "step DESC, attempt DESC LIMIT 1"
_FOR_OTHERS = f"""
SELECT * FROM saved AS s WHERE kind = 'state' AND (given
OR EXISTS (SELECT 1 FROM mutations AS m JOIN trials AS t ON t.number = m.trial
    WHERE m.donor = s.trial AND m.step = s.step AND t.outcome IN ({_UNFINISHED}) AND m.step >=
    (SELECT COALESCE(MAX(step), 0) FROM saved WHERE trial = m.trial AND kind = 'state')))
"""
"""States that are to be given to others, or were given to an unfinished trial that has saved nothing since."""
_SUPERSEDED = f"""
SELECT * FROM saved AS old WHERE kind = 'state' AND (step, attempt) !=
    (SELECT step, attempt FROM saved WHERE trial = old.trial AND kind = 'state' ORDER BY {_LATEST})
AND key NOT IN (SELECT key FROM ({_FOR_OTHERS}))
"""
"""States that no trial goes on from: not the last of their trial, and not for others."""


class Saved(Database):
    """The table of saved files."""

    def add_saved(self, records: Iterable[SavedRecord]) -> None:
        """Notes files that an attempt has saved; the same again changes nothing."""
        columns, places = ", ".join(SAVED_COLUMNS), ", ".join("?" * len(SAVED_COLUMNS))
        with self.transaction() as db:
            db.executemany(
                f"INSERT OR IGNORE INTO saved ({columns}) VALUES ({places})",
                ([getattr(record, name) for name in SAVED_COLUMNS] for record in records),
            )

    def state(self, trial: int, step: int | None = None) -> SavedRecord | None:
        """The last state of a trial, or its state at `step`; None where there is none."""
        return self._last(trial, FileKind.STATE, step)

    def model(self, trial: int) -> SavedRecord | None:
        """The weights of a completed trial, as long as they are kept."""
        return self._last(trial, FileKind.MODEL, None)

    def _last(self, trial: int, kind: FileKind, step: int | None) -> SavedRecord | None:
        row = self.db.execute(
            f"SELECT * FROM saved WHERE trial = ? AND kind = ? AND (? IS NULL OR step = ?) ORDER BY {_LATEST}",
            (trial, kind, step, step),
        ).fetchone()
        return SavedRecord.of(row) if row else None

    def state_to_go_on_from(self, trial: int) -> SavedRecord | None:
        """The state that a trial's next attempt begins with: its own last, or another trial's that population based
        training has given it since."""
        own = self.state(trial)
        row = self.db.execute(
            "SELECT donor, step FROM mutations WHERE trial = ? ORDER BY step DESC LIMIT 1", (trial,)
        ).fetchone()
        if row is None or (own is not None and own.step > row["step"]):
            return own
        return self.state(row["donor"], row["step"]) or own

    def give(self, trial: int, step: int, *, given: bool) -> None:
        """Keeps a trial's state at `step` for others, or no longer."""
        self.db.execute(
            "UPDATE saved SET given = ? WHERE trial = ? AND step = ? AND kind = ?",
            (int(given), trial, step, FileKind.STATE),
        )

    def superseded(self) -> list[SavedRecord]:
        """States of running trials that nobody needs any more."""
        return [SavedRecord.of(row) for row in self.db.execute(_SUPERSEDED)]

    def saved_of(self, trial: int) -> list[SavedRecord]:
        """All files of a trial that are kept."""
        rows = self.db.execute("SELECT * FROM saved WHERE trial = ? ORDER BY step, attempt", (trial,))
        return [SavedRecord.of(row) for row in rows]

    def for_others(self, trial: int) -> set[str]:
        """Keys of a trial's states that others may be given, or begin with."""
        return {row["key"] for row in self.db.execute(f"{_FOR_OTHERS} AND s.trial = ?", (trial,))}

    def forget(self, records: Iterable[SavedRecord]) -> None:
        """Notes that files are kept no longer."""
        with self.transaction() as db:
            db.executemany(
                "DELETE FROM saved WHERE trial = ? AND kind = ? AND step = ? AND attempt = ?",
                ((record.trial, record.kind, record.step, record.attempt) for record in records),
            )
