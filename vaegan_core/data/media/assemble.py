"""Puts the parts of sources together into a frame set: which frames stay, which are for testing, in what order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vaegan_core.data.frames import LEAST_TEST, LEAST_TRAIN, Split
from vaegan_core.data.media.looks import are_blank, are_copies, signatures
from vaegan_core.data.media.parts import Part, PartJob
from vaegan_core.data.media.split import choose_test_sources, groups_of
from vaegan_core.data.writer import FrameSetWriter

BLOCK = 256
"""Frames held in memory."""
NAMED = 5
"""Sources named in a message."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Stretch:
    """Frames of `source`, by their increasing indices in it, which become the frame set's source `name`."""

    name: str
    split: Split
    source: str
    indices: np.ndarray


class Assembly:
    """The frames of all parts of a capture, by source; memory holds a block of them and 200 bytes for each."""

    def __init__(self, parts: Sequence[tuple[PartJob, Part]], directory: Path, say: Say) -> None:
        """`directory` holds the frames of the parts."""
        self._directory = directory
        self._say = say
        self._parts: dict[str, list[tuple[PartJob, Part]]] = {}
        for job, part in parts:
            self._parts.setdefault(job.source, []).append((job, part))
        self._counts = {
            source: count for source, of in self._parts.items() if (count := sum(part.frames for _, part in of))
        }
        self._settings = parts[0][0].settings
        self.kind = self._settings.kind
        self.noun = "video" if self.kind == "videos" else "folder"

    def write(self, writer: FrameSetWriter, *, test_share: float, seed: int) -> dict[str, Any]:
        """Appends the frames to `writer`, training sources first.

        Copies of frames of an earlier source stay out, and so do sources whose frames are all of one color. Returns
        entries of the manifest: `split_by` ("source", or "time" for a single source), the number of `copies` and the
        names of `blank_sources`. Raises ValueError for too few frames.
        """
        kept, blank, copies = self._kept()
        split_by = "time" if len(kept) == 1 else "source"
        if split_by == "time":
            stretches, repeated = self._cut(*kept.popitem(), test_share)
            copies += repeated
        else:
            counts = {source: len(indices) for source, indices in kept.items()}
            test = choose_test_sources(counts, test_share, seed)
            self._say_balance(counts, test, test_share)
            stretches = [Stretch(s, "test" if s in test else "train", s, indices) for s, indices in kept.items()]
        self._check(stretches)
        for stretch in sorted(stretches, key=lambda s: s.split == "test"):
            writer.add_source(stretch.name, stretch.split)
            for start, frames in self._blocks(stretch.source):
                among = stretch.indices[(stretch.indices >= start) & (stretch.indices < start + len(frames))] - start
                if len(among):
                    writer.append(frames[among])
        return {"split_by": split_by, "copies": copies, "blank_sources": blank}

    # --- Which frames stay --------------------------------------------------------------------------------------------

    def _kept(self) -> tuple[dict[str, np.ndarray], list[str], int]:
        """Indices of the frames that stay, by source; names of the sources that show nothing; the number of copies."""
        looks, blank = {}, []
        for source in self._counts:
            seen = [
                (signatures(frames).round().astype(np.uint8), are_blank(frames)) for _, frames in self._blocks(source)
            ]
            if all(empty.all() for _, empty in seen):
                blank.append(source)
            else:
                looks[source] = np.concatenate([look for look, _ in seen])
        if blank:
            self._say(f"{self._number(len(blank))} left out, with all frames of a single color: {_some(blank)}.")
        if not looks:
            raise ValueError(f"these {self.kind} show nothing: every frame is of a single color; give others")
        copies = self._copies(looks)
        found = {source: int(copied.sum()) for source, copied in copies.items() if copied.any()}
        if found:
            self._say(
                f"{sum(found.values())} frames look the same as frames of another {self.noun}, and were left out: of "
                f"{_some(list(found))}."
            )
        kept = {source: np.flatnonzero(~copied) for source, copied in copies.items() if not copied.all()}
        return kept, blank, sum(found.values())

    def _copies(self, looks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Which frames of each source are copies of an earlier source's."""
        names, sizes = list(looks), [len(look) for look in looks.values()]
        starts = np.cumsum([0, *sizes])
        numbers = np.repeat(np.arange(len(names)), sizes)

        def frame(index: int) -> np.ndarray:
            return self._frame(names[numbers[index]], index - starts[numbers[index]])

        copied = are_copies(np.concatenate(list(looks.values())), numbers, frame)
        return dict(zip(names, np.split(copied, starts[1:-1]), strict=True))

    # --- Training and testing -----------------------------------------------------------------------------------------

    def _cut(self, source: str, indices: np.ndarray, test_share: float) -> tuple[list[Stretch], int]:
        """The first part of a single source for training, the rest for testing, without copies of the first part; and
        their number."""
        middle = min(max(round((1 - test_share) * len(indices)), 1), len(indices))
        looks = np.concatenate([signatures(frames).round().astype(np.uint8) for _, frames in self._blocks(source)])
        late = np.arange(len(indices)) >= middle
        copied = are_copies(looks[indices], late.astype(int), lambda index: self._frame(source, indices[index]))
        test = indices[late & ~copied]
        self._say(
            f"Only one source, {source}: its first {middle} frames are for training, its last {len(indices) - middle} "
            f"for testing. They may look alike; more than one {self.noun} makes a better test."
        )
        if copied.any():
            self._say(f"{copied.sum()} of the last frames look the same as one of the first, and were left out.")
        first, last = f"{source} (first part)", f"{source} (last part)"
        return [Stretch(first, "train", source, indices[:middle]), Stretch(last, "test", source, test)], int(
            copied.sum()
        )

    def _say_balance(self, counts: dict[str, int], test: set[str], test_share: float) -> None:
        share = sum(counts[source] for source in test) / sum(counts.values())
        if not test_share / 2 < share < test_share * 2:
            self._say(
                f"{share:.0%} of the frames are for testing instead of {test_share:.0%}, since no {self.noun} is in "
                "both splits and they differ in size."
            )
        groups = groups_of(list(counts))
        without = sorted(set(groups.values()) - {groups[source] for source in test} - {""})
        if without:
            self._say(
                f"No test frames come from {_some(without)}: more {self.noun}s there, or smaller ones, would help."
            )

    def _check(self, stretches: Sequence[Stretch]) -> None:
        train, test = (sum(len(s.indices) for s in stretches if s.split == split) for split in ("train", "test"))
        check_enough(
            train, test, self.kind, more_of_each=self.kind == "videos" and self._settings.max_per_source is None
        )

    # --- Reading ------------------------------------------------------------------------------------------------------

    def _number(self, count: int) -> str:
        return f"1 {self.noun} was" if count == 1 else f"{count} {self.noun}s were"

    def _frame(self, source: str, index: int) -> np.ndarray:
        """One frame, uint8 [H, W, 3]."""
        _, frames = next(self._blocks(source, int(index), 1))
        frame: np.ndarray = frames[0]
        return frame

    def _blocks(self, source: str, start: int = 0, most: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """The frames of a source from `start` on, uint8 [n <= most or BLOCK, H, W, 3] at a time, with the index of the
        first."""
        settings, before, most = self._settings, 0, most or BLOCK
        for job, part in self._parts[source]:
            first = max(start - before, 0)
            if first < part.frames:
                with (self._directory / f"{job.key}.raw").open("rb") as file:
                    file.seek(first * settings.frame_bytes)
                    for at in range(first, part.frames, most):
                        data = file.read(min(most, part.frames - at) * settings.frame_bytes)
                        yield before + at, np.frombuffer(data, np.uint8).reshape(-1, settings.height, settings.width, 3)
            before += part.frames


def check_enough(train: int, test: int, kind: str, *, more_of_each: bool) -> None:
    """Raises ValueError for fewer frames than a feature network and an evaluation need, saying what helps."""
    if train < LEAST_TRAIN or test < LEAST_TEST:
        raise ValueError(
            f"a frame set needs at least {LEAST_TRAIN} frames to train on and {LEAST_TEST} others to test on, but "
            f"these {kind} give {train} and {test}; give more {kind}"
            + (", or take more of their frames with every, such as 1s" if more_of_each else "")
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(islice(names, NAMED)) + (f" and {more} more" if more > 0 else "")
