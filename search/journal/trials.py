"""The trials of a sweep: their parameters, outcomes, and what changed along the way."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from search.journal.database import Database
from search.journal.records import BlockPlace, MutationRecord, TrialRecord
from search.names import FINAL_OUTCOMES, UNFINISHED_OUTCOMES, Outcome

_OWN = "replicate_of IS NULL AND block IS NULL"
"""Trials that do not stand apart from the search."""
_FINAL = ", ".join(f"'{outcome}'" for outcome in FINAL_OUTCOMES)


class Trials(Database):
    """The tables of trials and of their mutations."""

    def add_trial(
        self, number: int, params: dict[str, Any], config: str, origin: str, replicate_of: int | None = None
    ) -> None:
        self.db.execute(
            "INSERT INTO trials (number, params, config, origin, created, outcome, replicate_of) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (number, json.dumps(params), config, origin, time.time(), Outcome.RUNNING, replicate_of),
        )

    def add_block_trial(self, number: int, params: dict[str, Any], config: str, origin: str, place: BlockPlace) -> None:
        """A trial that answers questions."""
        with self.transaction() as db:
            self.add_trial(number, params, config, origin)
            db.execute("UPDATE trials SET block = ? WHERE number = ?", (json.dumps(asdict(place)), number))

    def trials(self, *outcomes: Outcome) -> list[TrialRecord]:
        """All trials, or those with one of these outcomes, by number."""
        rows = self.db.execute(f"SELECT * FROM trials{_with(outcomes)} ORDER BY number", outcomes)
        return [TrialRecord.of(row) for row in rows]

    def trial(self, number: int) -> TrialRecord:
        return TrialRecord.of(self.db.execute("SELECT * FROM trials WHERE number = ?", (number,)).fetchone())

    def recent(self, limit: int) -> list[TrialRecord]:
        """The running trials, then those that ended last."""
        rows = self.db.execute(
            "SELECT * FROM trials ORDER BY outcome != ?, ended DESC, number LIMIT ?", (Outcome.RUNNING, limit)
        )
        return [TrialRecord.of(row) for row in rows]

    def best_first(self, metric: str) -> Iterator[tuple[int, float, dict[str, float]]]:
        """(trial, value, validation metrics) of the completed trials that do not stand apart, from the smallest value
        of a validation metric on."""
        rows = self.db.execute(
            "SELECT t.number, e.metrics, json_extract(e.metrics, ?) AS value FROM trials t "
            "JOIN evaluations e ON e.trial = t.number AND e.step = t.step "
            f"WHERE t.outcome = ? AND {_OWN} AND value IS NOT NULL ORDER BY value",
            (f'$."{metric}"', Outcome.COMPLETED),
        )
        for row in rows:
            yield row["number"], row["value"], json.loads(row["metrics"])

    def outcome(self, trial: int) -> Outcome:
        row = self.db.execute("SELECT outcome FROM trials WHERE number = ?", (trial,)).fetchone()
        return Outcome(row["outcome"])

    def counts(self) -> dict[Outcome, int]:
        """Number of trials by outcome, those that stand apart included."""
        rows = self.db.execute("SELECT outcome, COUNT(*) AS count FROM trials GROUP BY outcome")
        return {Outcome(row["outcome"]): row["count"] for row in rows}

    def steps(self, *outcomes: Outcome) -> tuple[int, int]:
        """(number of trials, sum of their steps) with one of these outcomes, or of all trials."""
        row = self.db.execute(
            f"SELECT COUNT(*) AS count, COALESCE(SUM(step), 0) AS steps FROM trials{_with(outcomes)}", outcomes
        ).fetchone()
        return int(row["count"]), int(row["steps"])

    def own_steps(self, *outcomes: Outcome) -> tuple[int, int]:
        """Like `steps`, without the trials that stand apart from the search."""
        row = self.db.execute(
            "SELECT COUNT(*) AS count, COALESCE(SUM(step), 0) AS steps FROM trials "
            f"WHERE outcome IN ({', '.join('?' * len(outcomes))}) AND {_OWN}",
            outcomes,
        ).fetchone()
        return int(row["count"]), int(row["steps"])

    def num_drawn(self) -> int:
        """Number of trials that count against the budget: all that do not stand apart."""
        return int(self.db.execute(f"SELECT COUNT(*) FROM trials WHERE {_OWN}").fetchone()[0])

    def block_trials(self) -> list[TrialRecord]:
        """Those that answer questions, by number."""
        return [
            TrialRecord.of(row)
            for row in self.db.execute("SELECT * FROM trials WHERE block IS NOT NULL ORDER BY number")
        ]

    def begun_in_groups(self) -> dict[int, int]:
        """Number of trials that answer questions, by their group of questions."""
        rows = self.db.execute(
            "SELECT json_extract(block, '$.group') AS in_group, COUNT(*) AS count FROM trials "
            "WHERE block IS NOT NULL GROUP BY in_group"
        )
        return {row["in_group"]: row["count"] for row in rows}

    def unfinished_in_blocks(self, first: int) -> int:
        """Number of trials in blocks with a number below `first` that have not ended."""
        unfinished = ", ".join(f"'{outcome}'" for outcome in UNFINISHED_OUTCOMES)
        row = self.db.execute(
            f"SELECT COUNT(*) FROM trials WHERE outcome IN ({unfinished}) AND json_extract(block, '$.block') < ?",
            (first,),
        ).fetchone()
        return int(row[0])

    def next_number(self) -> int:
        return int(self.db.execute("SELECT COALESCE(MAX(number), -1) + 1 FROM trials").fetchone()[0])

    def end_trial(self, trial: int, outcome: Outcome, reason: str = "") -> None:
        """Records how a trial ended; a final outcome is never replaced.

        Raises ValueError for an outcome that is no end.
        """
        if Outcome(outcome) == Outcome.RUNNING:
            raise ValueError(f"a trial ends with one of {', '.join(FINAL_OUTCOMES)} or interrupted, but got {outcome}")
        self.db.execute(
            f"UPDATE trials SET outcome = ?, reason = ?, ended = ? WHERE number = ? AND outcome NOT IN ({_FINAL})",
            (Outcome(outcome), reason, time.time(), trial),
        )

    def reopen_trial(self, trial: int) -> None:
        """Makes an interrupted trial a running one."""
        self.db.execute(
            "UPDATE trials SET outcome = ?, reason = '', ended = NULL, synced = '' WHERE number = ? AND outcome = ?",
            (Outcome.RUNNING, trial, Outcome.INTERRUPTED),
        )

    def forgive_failed(self) -> list[int]:
        """Makes every failed trial interrupted and its failures uncounted; returns their numbers."""
        with self.transaction() as db:
            rows = db.execute("SELECT number FROM trials WHERE outcome = ?", (Outcome.FAILED,)).fetchall()
            numbers = [row["number"] for row in rows]
            db.execute(
                "UPDATE trials SET outcome = ?, reason = 'to be retried', synced = '' WHERE outcome = ?",
                (Outcome.INTERRUPTED, Outcome.FAILED),
            )
            db.executemany("UPDATE attempts SET forgiven = 1 WHERE trial = ?", ((number,) for number in numbers))
        return numbers

    def mutate_trial(self, record: MutationRecord, config: str) -> None:
        """Records that a trial continues from another trial's state, with other parameters."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO mutations (trial, step, donor, params) VALUES (?, ?, ?, ?)",
                (record.trial, record.step, record.donor, json.dumps(record.params)),
            )
            db.execute("UPDATE trials SET config = ?, files = files + 1 WHERE number = ?", (config, record.trial))

    def set_config(self, trial: int, config: str) -> None:
        """Replaces a trial's YAML."""
        self.db.execute("UPDATE trials SET config = ?, files = files + 1 WHERE number = ?", (config, trial))

    def mutations(self, trial: int) -> list[MutationRecord]:
        """By step."""
        rows = self.db.execute("SELECT * FROM mutations WHERE trial = ? ORDER BY step", (trial,))
        return [MutationRecord.of(row) for row in rows]


def _with(outcomes: tuple[Outcome, ...]) -> str:
    return f" WHERE outcome IN ({', '.join('?' * len(outcomes))})" if outcomes else ""
