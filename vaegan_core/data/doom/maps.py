"""The maps of the 3D shooter, and the number of frames taken from each."""

from __future__ import annotations

from dataclasses import dataclass

from vaegan_core.data.frames import Split

TRAIN_SCENARIOS = ("deathmatch", "my_way_home", "health_gathering_supreme", "deadly_corridor", "multi_deathmatch")
TEST_SCENARIOS = ("defend_the_center", "defend_the_line")
FRAMES_PER_SOURCE = 150
"""Roughly the number of frames taken from a map before another map is added."""
MIN_SOURCES = 6
TEST_SHARE = 0.2


@dataclass(frozen=True)
class DoomMap:
    """A map of a game file (`wad`, with extension, beside the ViZDoom module), or of a bundled scenario."""

    name: str
    split: Split
    wad: str
    map: str
    scenario: str | None = None


def doom_maps(split: Split) -> list[DoomMap]:
    """All maps of `split`, in the order in which a growing frame set adds them; every fifth map is a test map."""
    first = [("freedoom1.wad", f"E{episode}M{number}") for number in range(1, 10) for episode in range(1, 5)]
    second = [("freedoom2.wad", f"MAP{number:02}") for number in range(1, 33)]
    mixed = [pair for pairs in zip(first, second, strict=False) for pair in pairs] + first[len(second) :]
    chosen = [pair for i, pair in enumerate(mixed) if (i % 5 == 4) == (split == "test")]
    maps = [DoomMap(f"{wad.removesuffix('.wad')}/{name}", split, wad, name) for wad, name in chosen]
    scenarios = TRAIN_SCENARIOS if split == "train" else TEST_SCENARIOS
    for i, name in enumerate(scenarios):
        maps.insert(4 * i + 3, DoomMap(f"scenario/{name}", split, "freedoom2.wad", "MAP01", f"{name}.wad"))
    return maps


def frames_per_map(num_frames: int) -> dict[DoomMap, int]:
    """Number of frames by map, training maps first; depends on `num_frames` alone."""
    quotas: dict[DoomMap, int] = {}
    num_test = round(TEST_SHARE * num_frames)
    for split, frames, least in (("train", num_frames - num_test, MIN_SOURCES - 2), ("test", num_test, 2)):
        maps = doom_maps(split)  # type: ignore[arg-type]
        maps = maps[: max(least, round(frames / FRAMES_PER_SOURCE))]
        quotas |= {m: count for m, count in zip(maps, split_evenly(frames, len(maps)), strict=True) if count}
    return quotas


def split_evenly(total: int, parts: int) -> list[int]:
    """`parts` numbers that sum to `total` and differ by at most 1, the larger ones first."""
    return [total // parts + (i < total % parts) for i in range(parts)]
