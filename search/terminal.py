"""What the commands say to a person: lines, and how far they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console()
if not console.is_terminal:
    console = Console(width=200)


def say(line: str) -> None:
    console.print(line, highlight=False)


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A bar with times on a terminal, a line every few seconds elsewhere; yields advance(done[, total])."""
    if not console.is_terminal:
        yield _plain_progress(title, total)
        return
    counts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*counts, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done, of=None: bar.update(task, completed=done, **({"total": of} if of else {}))


def _plain_progress(title: str, total: int | None) -> Callable[..., None]:
    started = last = time.monotonic()

    def advance(done: int, of: int | None = None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 5.0:
            last = now
            goal = of or total
            left = f" of {goal}, about {(now - started) / max(done, 1) * (goal - done):.0f} s left" if goal else ""
            say(f"{title}: {done}{left}")

    say(f"{title} …")
    return advance


@contextmanager
def stage(console: Console, message: str) -> Iterator[Callable[[str], None]]:
    """Says what is going on while it goes on: a spinner on a terminal, one line elsewhere. Yields a way to say more."""
    if console.is_terminal:
        with console.status(message) as status:
            yield status.update
    else:
        console.print(f"{message} …", highlight=False)
        yield lambda _message: None
