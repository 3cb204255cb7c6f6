"""Parts of sources into one frame set: which sources are for testing, and where each stretch of frames goes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from vaegan_core.data.frames import Split


@dataclass(frozen=True)
class Stretch:
    """Frames `start` to `stop` of `source` become the set's source `name`."""

    name: str
    split: Split
    source: str
    start: int
    stop: int


def choose_test_sources(names: list[str], share: float, seed: int) -> set[str]:
    """The test sources: the `share` of the names, at least one and not all, that have the smallest hashes.

    The order of the names does not matter; one more source moves at most one other between the splits.
    """
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    return set(ranked[: min(max(round(share * len(names)), 1), len(names) - 1)])
