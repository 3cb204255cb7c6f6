"""The command `vaegan`. Argument handling and words only; the work is done by the modules it calls."""

from __future__ import annotations

import sys

from search.commands.app import app
from search.commands.data import data
from search.commands.finished import promote, report, rerun, ui
from search.commands.options import help_of
from search.commands.pictures import reconstruct, sample
from search.commands.sweeps import check, export, resume, schema, status, stop, sweep, sync
from search.commands.train import train
from search.terminal import errors

COMMANDS = (
    *(train, check, schema, sweep, resume, sync, stop, status, export),
    *(report, promote, sample, reconstruct, rerun, ui),
)
"""In the order of the help page."""

for command in COMMANDS:
    app.command(help=help_of(command))(command)
app.add_typer(data, name="data")


def main() -> None:
    """Runs the command; what a person did wrong is one message, not a traceback."""
    try:
        app()
    except ValueError as error:
        _print_error(str(error))
        sys.exit(2)
    except OSError as error:
        _print_error(str(error))
        sys.exit(1)
    except Exception as error:
        if not type(error).__module__.startswith("mlflow."):
            raise
        from search.tracking.errors import explain

        _print_error(f"MLflow cannot be used: {explain(error)}")
        sys.exit(1)


def _print_error(text: str) -> None:
    errors.say(f"Error: {text}", style="red")


if __name__ == "__main__":
    main()
