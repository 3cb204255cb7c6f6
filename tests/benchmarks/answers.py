"""What search/sweeps/questions.yaml has found so far. It takes days on two cores, so its journal is kept here between
slices, without curves and pictures:

    python tests/benchmarks/answers.py              packs it into questions.db.gz, and prints the answers
    python tests/benchmarks/answers.py --restore    puts it where `vaegan resume questions` goes on with it
"""

from __future__ import annotations

import gzip
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from search.journal.journal import Journal
from search.journal.outbox import WHAT_WAS_SENT
from search.journal.sweeps import directory_of, exists, open_sweep
from search.paths import JOURNAL_FILE
from search.questions.sentences import notes_of, sentence_of
from search.standings.blocks import Blocks
from search.terminal import counted
from vaegan_core.tensor_files import write_atomically

PACKED = Path(__file__).with_name("questions.db.gz")
NAME = "questions"


def pack() -> None:
    """Writes the journal without what its answers do not need, as one that no MLflow has heard of yet."""
    with TemporaryDirectory() as directory:
        copy = Path(directory, JOURNAL_FILE)
        with closing(sqlite3.connect(directory_of(NAME) / JOURNAL_FILE)) as whole, closing(sqlite3.connect(copy)) as db:
            whole.backup(db)
            for table in ("points", "images", "saved"):
                db.execute(f"DELETE FROM {table}")
            db.execute("UPDATE trials SET run_id = NULL, synced = ''")
            db.executemany("DELETE FROM meta WHERE key = ?", [(key,) for key in WHAT_WAS_SENT])
            db.commit()
            db.execute("VACUUM")
            db.execute("PRAGMA journal_mode = DELETE")
        write_atomically(PACKED, gzip.compress(copy.read_bytes(), 9, mtime=0))
    print(f"{PACKED.name}: {PACKED.stat().st_size / 1024:.0f} KiB")


def show() -> None:
    """Prints what the blocks say now."""
    sweep, directory = open_sweep(NAME)
    with closing(Journal(directory / JOURNAL_FILE)) as journal:
        blocks = Blocks(sweep, journal)
        done = blocks.done()
        for answer in blocks.answers():
            told = " ".join([sentence_of(answer), *notes_of(answer)])
            print(f"{answer.asked.name} ({counted(done[answer.asked.name], 'block')}): {told}")


def restore() -> None:
    """Puts the packed journal into a directory that holds no sweep."""
    directory = directory_of(NAME)
    if exists(directory):
        raise SystemExit(f"{directory} holds a sweep already; move it away first")
    directory.mkdir(parents=True)
    write_atomically(directory / JOURNAL_FILE, gzip.decompress(PACKED.read_bytes()))
    print(f"{directory / JOURNAL_FILE} is there; go on with: vaegan resume {NAME}")


if __name__ == "__main__":
    if sys.argv[1:] == ["--restore"]:
        restore()
    else:
        pack()
        show()
