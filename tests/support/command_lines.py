"""Command lines of `vaegan` as documents and messages give them, judged by the command's own parser."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import typer.main

import search.cli  # noqa: F401 — it gives the app its commands
from search.commands.app import app

CLI: Any = typer.main.get_command(app)
UsageError: Any = typer.BadParameter.__mro__[1]
IN_TEXT = re.compile(r"(?<![\w./-])vaegan ((?:[a-z]+)[^`\n;()]*)")
"""A command within a sentence; what follows it ends with punctuation or a line."""


def options_of(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if parameter.param_type_name == "option":
            yield from (*parameter.opts, *parameter.secondary_opts)


def wrong_with(words: list[str], whole: bool) -> str:
    """What click says to the words after `vaegan`, "" if they are right; inline, arguments may be left out."""
    command, path, words = CLI, "vaegan", list(words)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name == "COMMAND":
            return ""
        if name not in command.commands:
            return f"{path} has no command {name}"
        command, path = command.commands[name], f"{path} {name}"
    if "--help" in words or hasattr(command, "commands"):
        unknown = [word for word in words if word.startswith("-") and word not in {"--help", *options_of(command)}]
        return f"{path} has no option {', '.join(unknown)}" if unknown else ""
    try:
        command.make_context(path, ["1" if word == "N" else word for word in words])
    except UsageError as error:
        if whole or "Missing" not in type(error).__name__:
            return str(error.format_message())
    return ""


def commands_in(text: str) -> Iterator[list[str]]:
    """The words after `vaegan` of every command in a message."""
    for match in IN_TEXT.finditer(text):
        yield shlex.split(match[1].rstrip(" .,:").replace("…", "1"))
