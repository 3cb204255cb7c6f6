"""Any error as one message for a person: what was wrong, without the dumps that libraries make."""

from __future__ import annotations

import re
import sys
import tempfile
import traceback
from typing import Any

import typer

from search.names import STORAGE_AWAY
from search.redaction import redact
from vaegan_core.spelling import did_you_mean

CHANGE_SOMETHING = 2
"""Exit code where the user has to change something."""
FAILED = 1
"""Exit code where a file, a server, the machine or this program failed."""
OURS = ("search.", "vaegan_core.")
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "unable to allocate")


def explain(error: BaseException) -> tuple[str, int]:
    """The message, and the exit code of the command."""
    if isinstance(error, typer.Abort) and error.__cause__ is not None:
        error = error.__cause__
    if hasattr(error, "format_message"):
        return _usage(error), CHANGE_SOMETHING
    if isinstance(error, ValueError) and _is_ours(error):
        return str(error), CHANGE_SOMETHING
    if type(error).__module__ == "search.storage.store":
        return f"{error} (try again once it answers)", STORAGE_AWAY
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror, FAILED
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY):
        return f"{_memory()}; lower model.width, model.latent_dim or train.batch_size ({_first_line(error)})", FAILED
    if type(error).__module__.startswith("mlflow."):
        from search.tracking.errors import explain as explain_mlflow

        return f"MLflow cannot be used: {explain_mlflow(error)}", FAILED
    return f"{_first_line(error)}. This was not foreseen; {_keep_traceback(error)} says where it happened.", FAILED


def _is_ours(error: BaseException) -> bool:
    """Whether our own code raised it, and not a library that we called."""
    if type(error).__module__.startswith(OURS):
        return True
    *_, last = traceback.walk_tb(error.__traceback__)
    return str(last[0].f_globals.get("__name__")).startswith(OURS)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}".rstrip(": .")


def _memory() -> str:
    import psutil

    return f"the memory of this machine ({psutil.virtual_memory().total / 1e9:.0f} GB, or its GPU's) is not enough"


def _keep_traceback(error: BaseException) -> str:
    """The file that it is in now."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="vaegan-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(redact("".join(traceback.format_exception(error))))
    return file.name


def _usage(error: Any) -> str:
    """What click says of a command line, with what was given and what was meant; "" where it has shown the help."""
    message = re.sub(r" \(Possible options: .*\)$|, unable to parse .*$", "", str(error.format_message()).strip())
    if not message:
        return ""
    context = error.ctx
    if option := getattr(error, "option_name", None):
        message += did_you_mean(option, (name for each in context.command.params for name in each.opts))
    elif message.startswith("Invalid value for '-") and (given := _given(error.param.opts, sys.argv)) is not None:
        message = f"{message.replace('Input should be', 'must be')}, but got {given!r}"
    return f"{message.rstrip('.?')}{'?' if message.endswith('?') else '.'} For more: {context.command_path} --help"


def _given(options: list[str], words: list[str]) -> str | None:
    """What follows an option on the command line."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in options:
            return value if equals else following
    return None
