"""The READMEs taken apart: prose without code blocks, code blocks, commands, links, headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Block(NamedTuple):
    language: str
    text: str


class Command(NamedTuple):
    """A command line as a README writes it; `whole` means that it stands in a code block, ready to be pasted."""

    text: str
    words: list[str]
    whole: bool


class Readme:
    def __init__(self, name: str) -> None:
        self.name = name
        self.path = ROOT / name
        self.text = self.path.read_text()

    @cached_property
    def _parts(self) -> tuple[str, list[Block]]:
        prose: list[str] = []
        blocks: list[Block] = []
        fence: list[str] | None = None
        language = ""
        for line in self.text.splitlines():
            if line.strip().startswith("```"):
                if fence is None:
                    fence, language = [], line.strip().removeprefix("```").strip()
                else:
                    blocks.append(Block(language, "\n".join(fence)))
                    fence = None
            elif fence is not None:
                fence.append(line)
            elif line.startswith("    ") and (not prose or not prose[-1].strip() or prose[-1] == "\0"):
                blocks.append(Block("sh", line.strip()))
                prose.append("\0")
            else:
                prose.append(line)
        return "\n".join(line for line in prose if line != "\0"), blocks

    @property
    def prose(self) -> str:
        return self._parts[0]

    @property
    def blocks(self) -> list[Block]:
        return self._parts[1]

    @cached_property
    def spans(self) -> list[str]:
        """Inline code; a span may be broken over two lines."""
        return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", self.prose)]

    @cached_property
    def entries(self) -> list[str]:
        """List items and table rows, each on one line: where one thing is described."""
        joined = re.sub(r"\n(?![-|#\n]|\d+\. )\s*", " ", self.prose)
        return [line for line in joined.splitlines() if line.startswith(("- ", "| "))]

    @cached_property
    def links(self) -> list[str]:
        return re.findall(r"\]\(([^)\s]+)\)", self.prose)

    @cached_property
    def anchors(self) -> set[str]:
        """As GitHub makes them of headings."""
        headings = re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    @cached_property
    def map(self) -> list[str]:
        """Files of the lines "- `path/file.py`: phrase", in their order."""
        return re.findall(r"^- `([\w/.]+\.py)`: \S", self.prose, re.MULTILINE)

    @cached_property
    def commands(self) -> list[Command]:
        lines = [line for block in self.blocks if block.language != "yaml" for line in block.text.splitlines()]
        found = [command(line, whole=True) for line in lines]
        return [*found, *(command(span, whole=False) for span in self.spans)]

    def section(self, heading: str) -> str:
        """The text below a heading, up to the next one of its level."""
        return re.split(r"^## ", self.prose.partition(f"## {heading}\n")[2], flags=re.MULTILINE)[0]


def command(text: str, *, whole: bool) -> Command:
    """Without variables set before it, comments and an ellipsis."""
    try:
        words = shlex.split(text.replace("…", " "), comments=True)
    except ValueError:
        words = []
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    return Command(text, words, whole)


def set_keys(words: list[str]) -> Iterator[str]:
    """Keys of every `--set KEY=VALUE`."""
    for option, value in pairwise(words):
        if option == "--set":
            yield value.partition("=")[0]
