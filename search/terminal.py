"""What a person sees of a command: lines, tables, and how far it is."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from rich.console import Console, RenderableType

from search.redaction import redact

PLAIN_WIDTH = 200
"""Columns of tables where the output is no terminal."""
PLAIN_SECONDS = 5.0
"""Time between two lines of progress where the output is no terminal."""
SAY_SECONDS = 2.0
"""How long a thread waits for what it says to be written."""


_COMMAND = re.compile(r"(?<![\w./-])vaegan (?=[a-z-])")


@cache
def program(name: str) -> str:
    """How a program of this environment is typed in this shell and directory, where its folder may be on no PATH."""
    here, found = Path(sys.prefix) / "bin" / name, shutil.which(name)
    if found and Path(found).resolve() == here.resolve():
        return name
    if not here.exists():
        return f"{shlex.quote(sys.executable)} -m {'search.cli' if name == 'vaegan' else name}"
    near = os.path.relpath(here)
    return shlex.quote(str(here) if near.startswith("..") else near)


def as_typed(text: str) -> str:
    """`text` with every `vaegan COMMAND` in it as it can be typed here."""
    return _COMMAND.sub(lambda _: f"{program('vaegan')} ", text)


def counted(number: float, noun: str) -> str:
    """The number with its noun in singular or plural: 1 trial, 2 trials."""
    return f"{number:,.10g} {noun}{'' if number == 1 else 's'}"


def listed(words: Sequence[str]) -> str:
    """Words with commas, and an "and" before the last."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def duration(seconds: float) -> str:
    """A time in words: 45s, 2m10s, 3h05m."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


def say_safely(say: Callable[[str], None], text: str) -> None:
    """Says something in a thread beside what must go on: this returns soon, and raises nothing, whatever has become of
    the output, be it closed, full or blocked."""

    def speak() -> None:
        with suppress(Exception, SystemExit):  # what rich makes of a pipe that is closed
            say(text)

    with suppress(RuntimeError):  # no thread can be started
        speaking = threading.Thread(target=speak, daemon=True)
        speaking.start()
        speaking.join(SAY_SECONDS)


class Screen:
    """The terminal, or a file or pipe in its place. Text appears without secrets, its commands as they can be typed
    here, and else as it is: never as markup, never cut into lines."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        if console is None and not self.console.is_terminal:
            self.console = Console(width=PLAIN_WIDTH)

    @property
    def is_terminal(self) -> bool:
        return self.console.is_terminal

    def say(self, text: str, style: str | None = None) -> None:
        self.console.print(as_typed(redact(text)), style=style, highlight=False, markup=False, soft_wrap=True)

    def show(self, what: RenderableType) -> None:
        """A table, say."""
        self.console.print(what)

    @contextmanager
    def stage(self, message: str) -> Iterator[Callable[[str], None]]:
        """Shows what is being done: a spinner on a terminal, one line elsewhere. Yields a way to change the message."""
        if self.is_terminal:
            with self.console.status(message) as status:
                yield status.update
        else:
            self.say(f"{message} …")
            yield lambda _message: None

    @contextmanager
    def progress(self, title: str, total: int | None) -> Iterator[Callable[..., None]]:
        """A bar with times on a terminal, a line every few seconds elsewhere; yields advance(done[, total])."""
        if not self.is_terminal:
            yield self._plain_progress(title, total)
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, *times, console=self.console, transient=True) as bar:
            task = bar.add_task(title, total=total)
            yield lambda done, of=None: bar.update(task, completed=done, **({"total": of} if of else {}))

    def _plain_progress(self, title: str, total: int | None) -> Callable[..., None]:
        started = last = time.monotonic()

        def advance(done: int, of: int | None = None) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= PLAIN_SECONDS:
                last = now
                goal = of or total
                left = f" of {goal}, about {(now - started) / max(done, 1) * (goal - done):.0f} s left" if goal else ""
                self.say(f"{title}: {done}{left}")

        self.say(f"{title} …")
        return advance


screen = Screen()
errors = Screen(Console(stderr=True))
