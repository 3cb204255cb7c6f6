"""The command `vaegan`. Argument handling and words only; the work is done by the modules it calls."""

from __future__ import annotations

import sys
from io import TextIOWrapper

from search.commands.app import app
from search.commands.cluster import attach, doctor
from search.commands.data import data
from search.commands.options import help_of
from search.commands.pictures import reconstruct, sample
from search.commands.promote import promote
from search.commands.report import report, ui
from search.commands.rerun import rerun
from search.commands.sweeps import check, export, resume, schema, status, stop, sweep, sync
from search.commands.train import train
from search.terminal import errors

COMMANDS = (
    *(train, check, schema, sweep, resume, attach, doctor, sync, stop, status, export),
    *(report, promote, sample, reconstruct, rerun, ui),
)
"""In the order of the help page."""

for command in COMMANDS:
    app.command(help=help_of(command))(command)
app.add_typer(data, name="data")


def main() -> None:
    """Runs the command; what goes wrong is one message, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # None where the shell has closed it
            stream.reconfigure(errors="replace")  # for a terminal whose encoding has no ellipsis
    try:
        sys.exit(app(prog_name="vaegan", standalone_mode=False))
    except Exception as error:
        from search.commands.errors import explain

        message, code = explain(error)
        if message:
            errors.say(f"Error: {message}", style="red")
        sys.exit(code)


if __name__ == "__main__":
    main()
