"""Trainings of several hundred quasi-random configurations on real frames, for replay.py. `vaegan sweep` recorded them
as curves.yaml says; this packs what the sweeps hold by now into curves.json.gz:

    python tests/benchmarks/recording.py

The second sweep repeats the first points with another seed, which says what a seed changes.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.sweeps import directory_of, exists, open_sweep
from search.names import Outcome
from search.paths import JOURNAL_FILE
from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE
from vaegan_core.tensor_files import write_atomically

HERE = Path(__file__).parent
SWEEP = HERE / "curves.yaml"
TABLE = HERE / "curves.json.gz"
RECORDED = ("curves", "curves-again")
OBJECTIVES = (PIXEL_MSE, LAYOUT_FD)


def trainings(journal: Journal, seed: int) -> Iterator[dict[str, Any]]:
    """Every training of one sweep that came to an end."""
    for trial in journal.trials(Outcome.COMPLETED, Outcome.DIVERGED):
        curve = [
            [step, *(float(f"{metrics[name]:.6g}") for name in OBJECTIVES)]
            for step, metrics in journal.evaluations(trial.number).items()
        ]
        diverged = trial.step if trial.outcome == Outcome.DIVERGED else None
        yield {
            "configuration": trial.number,
            "seed": seed,
            "params": trial.params,
            "curve": curve,
            "diverged": diverged,
        }


def pack() -> None:
    """Writes the table: what was recorded, with the baselines that its numbers are measured against."""
    table: dict[str, Any] = {"objectives": OBJECTIVES, "trainings": []}
    for name in (name for name in RECORDED if exists(directory_of(name))):
        sweep, directory = open_sweep(name)
        journal = Journal(directory / JOURNAL_FILE)
        table |= {"frames": journal.meta(Meta.FRAMES), "baselines": json.loads(journal.meta(Meta.BASELINES))}
        table["trainings"] += trainings(journal, int(sweep.config.base["train"]["seed"]))
        journal.close()
    write_atomically(TABLE, gzip.compress(json.dumps(table).encode(), 9, mtime=0))
    print(f"{TABLE.name}: {len(table['trainings'])} trainings, {TABLE.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    pack()
