"""Which sources of a frame set are for testing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence

MOST_TEST = 5 / 3
"""Test frames at most, as a multiple of those asked for, so that every group has some: one of three recordings."""


def choose_test_sources(counts: Mapping[str, int], share: float, seed: int) -> set[str]:
    """Names of the test sources: about `share` of the frames, at least one source and not all.

    `counts`: frames by name of source. Sources in one folder are a group, and each group gives its share where its
    sources are small enough. Among equals those with the smallest hashes of `seed` and name are chosen, so the order
    does not matter, and one more source moves few others between the splits.
    """
    ranked = sorted(counts, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    groups = groups_of(ranked)
    wanted = share * sum(counts.values())
    test = [name for members in _members(ranked, groups) for name in _nearest(members, counts, share)]
    if sum(counts[name] for name in test) > MOST_TEST * wanted + 1e-9:
        test = []
    covered = {groups[name] for name in test}
    left = wanted - sum(counts[name] for name in test)
    for name in ranked:
        if groups[name] not in covered and counts[name] <= 2 * left:
            test.append(name)
            covered.add(groups[name])
            left -= counts[name]
    chosen = test or [min(ranked, key=counts.__getitem__)]
    return set(chosen if len(chosen) < len(ranked) else chosen[:-1])


def groups_of(names: Sequence[str]) -> dict[str, str]:
    """The group of each source: the first folder of its name after those that all names share, "" outside of it."""
    folders = [os.path.dirname(name.rstrip("/")) for name in names]
    shared = len(os.path.commonpath(folders)) if folders else 0
    return {name: folder[shared:].lstrip("/").split("/")[0] for name, folder in zip(names, folders, strict=True)}


def _members(ranked: Sequence[str], groups: Mapping[str, str]) -> list[list[str]]:
    members: dict[str, list[str]] = {}
    for name in ranked:
        members.setdefault(groups[name], []).append(name)
    return list(members.values())


def _nearest(ranked: Sequence[str], counts: Mapping[str, int], share: float) -> list[str]:
    """The first of the ranked names that bring their frames nearer to `share` of those of all of them."""
    left = share * sum(counts[name] for name in ranked)
    chosen = []
    for name in ranked:
        if counts[name] <= 2 * left:
            chosen.append(name)
            left -= counts[name]
    return chosen
