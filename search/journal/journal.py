"""A sweep's one truth: a SQLite file (WAL) on the driver's disk, from which the Optuna study, the rungs, the MLflow
runs and the live table are derived. Every write is one transaction; a repeated report changes nothing."""

from __future__ import annotations

from search.journal.attempts import Attempts
from search.journal.reports import Reports
from search.journal.saved import Saved
from search.journal.trials import Trials


class Journal(Trials, Attempts, Reports, Saved):
    """Everything known about a sweep: its trials, the attempts at them and what these reported."""
