"""What search/sweeps/questions.yaml has found so far, on frames of Doom and on those of atari.py. It takes days on two
cores, so the journals are kept here between slices, without curves and pictures:

    vaegan sweep search/sweeps/questions.yaml --set base.frames=runs/frames/atari --set name=questions-atari
    python tests/benchmarks/answers.py questions-atari              packs it into a .db.gz, and prints the answers
    python tests/benchmarks/answers.py questions-atari --restore    puts it where `vaegan resume` goes on with it

Without a name it is `questions`.
"""

from __future__ import annotations

import argparse
import gzip
import sqlite3
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


def packed(name: str) -> Path:
    """Where the journal of a sweep is kept."""
    return Path(__file__).with_name(f"{name}.db.gz")


def pack(name: str) -> None:
    """Writes the journal without what its answers do not need, as one that no MLflow has heard of yet."""
    with TemporaryDirectory() as directory:
        copy = Path(directory, JOURNAL_FILE)
        with closing(sqlite3.connect(directory_of(name) / JOURNAL_FILE)) as whole, closing(sqlite3.connect(copy)) as db:
            whole.backup(db)
            for table in ("points", "images", "saved"):
                db.execute(f"DELETE FROM {table}")
            db.execute("UPDATE trials SET run_id = NULL, synced = ''")
            db.executemany("DELETE FROM meta WHERE key = ?", [(key,) for key in WHAT_WAS_SENT])
            db.commit()
            db.execute("VACUUM")
            db.execute("PRAGMA journal_mode = DELETE")
        write_atomically(packed(name), gzip.compress(copy.read_bytes(), 9, mtime=0))
    print(f"{packed(name).name}: {packed(name).stat().st_size / 1024:.0f} KiB")


def show(name: str) -> None:
    """Prints what the blocks say now."""
    sweep, directory = open_sweep(name)
    with closing(Journal(directory / JOURNAL_FILE)) as journal:
        blocks = Blocks(sweep, journal)
        done = blocks.done()
        for answer in blocks.answers():
            told = " ".join([sentence_of(answer), *notes_of(answer)])
            print(f"{answer.asked.name} ({counted(done[answer.asked.name], 'block')}): {told}")


def restore(name: str) -> None:
    """Puts the packed journal into a directory that holds no sweep."""
    directory = directory_of(name)
    if exists(directory):
        raise SystemExit(f"{directory} holds a sweep already; move it away first")
    directory.mkdir(parents=True)
    write_atomically(directory / JOURNAL_FILE, gzip.decompress(packed(name).read_bytes()))
    print(f"{directory / JOURNAL_FILE} is there; go on with: vaegan resume {name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("name", nargs="?", default="questions")
    parser.add_argument("--restore", action="store_true")
    given = parser.parse_args()
    if given.restore:
        restore(given.name)
    else:
        pack(given.name)
        show(given.name)
