"""What worker processes run in tests, in a module that they can import by its name."""

import os
import time
from multiprocessing.connection import Connection
from pathlib import Path


def obey(connection: Connection, _directory: Path) -> None:
    """Answers n with n and "n done"; kills itself or falls silent when told to."""
    while True:
        job = connection.recv()
        if job == "die":
            os.abort()
        if job == "sleep":
            time.sleep(60)
        connection.send(int(job))
        connection.send(f"{job} done")
