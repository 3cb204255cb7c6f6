"""The nearest right spelling of a word that a person mistyped."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

CLOSE = 0.6
"""Similarity, from 0 to 1, above which a word may have been meant."""
VERY_CLOSE = 0.8
ANOTHER_CHOICE = "; it belongs to another choice of"
"""Before the part of a configuration of which one of several kinds was chosen."""


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """The end of a message: `; did you mean NEAREST?`, or "" where nothing that is known is near."""
    nearest = _nearest(str(word), map(str, known), CLOSE)
    return f"; did you mean {nearest}?" if nearest else ""


def right_key(path: str, keys: Iterable[str]) -> str:
    """The end of a message about a dotted `path` that is not among `keys`: the one that was meant, or its neighbors."""
    keys = list(dict.fromkeys(keys))
    parent, _, last = path.rpartition(".")
    beside = [key.rpartition(".")[2] for key in keys if key.rpartition(".")[0] == parent]
    anywhere = [key.rpartition(".")[2] for key in keys]
    if last in beside:
        return f"{ANOTHER_CHOICE} {parent}"
    if meant := _nearest(last, beside, CLOSE):
        return f"; did you mean {meant}?"
    if meant := _nearest(last, anywhere, VERY_CLOSE):
        same = [key for key, name in zip(keys, anywhere, strict=True) if name == meant]
        return f"; did you mean {_nearest(path, same, 0.0)}?"
    return f"; the keys here are {', '.join(beside)}" if beside else ""


def _nearest(word: str, known: Iterable[str], similarity: float) -> str:
    """Upper and lower case are the same."""
    by_lower = {each.lower(): each for each in known}
    close = get_close_matches(word.lower(), by_lower, n=1, cutoff=similarity)
    return by_lower[close[0]] if close else ""
