"""Which frames of videos and images stay, and which are for testing."""

from pathlib import Path

import numpy as np
import pytest
from clips import enlarged
from media_captures import capture_images, save_images
from PIL import Image

from vaegan_core.data.frames import FrameSet
from vaegan_core.data.media import capture as media
from vaegan_core.data.media.split import choose_test_sources


def test_the_split_depends_on_seed_and_names_alone() -> None:
    counts = {f"video {i}": 7 for i in range(50)}
    test = choose_test_sources(counts, 0.2, seed=3)
    assert len(test) == 10
    assert choose_test_sources(dict(reversed(counts.items())), 0.2, seed=3) == test
    assert choose_test_sources(counts, 0.2, seed=4) != test
    assert len(choose_test_sources(counts | {"another": 7}, 0.2, seed=3) ^ test) <= 2
    few = [({f"{i}": 1 for i in range(n)}, share) for n, share in ((2, 0.01), (2, 0.99), (3, 0.5))]
    assert [len(choose_test_sources(counts, share, 0)) for counts, share in few] == [1, 1, 2]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("counts", "least", "most"),
    [
        ({"stray/": 60, "folder": 300}, 0.16, 0.17),
        ({"long.mp4": 900, **{f"{i}.mp4": 20 for i in range(15)}}, 0.19, 0.21),
        ({f"game {i % 3}/{i}.mp4": 100 for i in range(12)}, 0.2, 0.26),
        ({f"game {i % 3}/{i}.mp4": 100 for i in range(9)}, 0.2, 0.34),
        ({f"game {i % 5}/{i}.mp4": 100 for i in range(10)}, 0.2, 0.2),
        ({f"albums/{i}/photos": 10 for i in range(20)}, 0.2, 0.2),
    ],
)
def test_about_a_fifth_of_the_frames_is_for_testing_from_every_folder_that_can_give_some(
    counts: dict[str, int], least: float, most: float, seed: int
) -> None:
    test = choose_test_sources(counts, 0.2, seed)
    assert least <= sum(counts[name] for name in test) / sum(counts.values()) <= most
    if len(counts) in (9, 12):
        assert {name.split("/")[0] for name in test} == {"game 0", "game 1", "game 2"}


def test_what_the_split_could_not_do_is_said(tmp_path: Path, frame_set: FrameSet) -> None:
    for i, count in enumerate((12, 30, 30)):
        save_images(tmp_path / "in" / f"game {min(i, 1)}" / f"{i}", frame_set.frames[60 * i : 60 * i + count])
    said: list[str] = []
    capture_images(tmp_path / "set", tmp_path / "in", say=said.append)
    assert any(line.startswith("No test frames come from game 1") for line in said)


# ---------------------------------------------------------------------------------------------------------------------
# What frames look like


def test_copies_are_never_on_both_sides(tmp_path: Path, folders: Path, frame_set: FrameSet) -> None:
    """An album, its backup, and small copies of its pictures in another compression, brightened by a level."""
    for i, frame in enumerate(frame_set.frames[:12]):
        small = Image.fromarray(enlarged(frame[None])[0] + 1)
        (tmp_path / "images" / "small").mkdir(exist_ok=True)
        small.resize((124, 68)).save(tmp_path / "images" / "small" / f"{i}.jpg", quality=90)
    save_images(tmp_path / "images" / "backup", frame_set.frames[12:24])
    said: list[str] = []
    made = capture_images(tmp_path / "set", folders, say=said.append)
    assert [line for line in said if "look the same" in line] == [
        "24 frames look the same as frames of another folder, and were left out: of backup, small."
    ]
    assert made.manifest.made_by["copies"] == 24
    assert sorted(s.name for s in made.manifest.sources) == ["a", "b", "c", "d", "e"]


def test_a_single_source_has_no_copies_in_its_last_part(tmp_path: Path, frame_set: FrameSet) -> None:
    """An animation that begins again."""
    frames = frame_set.frames[:24]
    save_images(tmp_path / "loop", np.concatenate([frames, frames[:6]]))
    made = capture_images(tmp_path / "set", tmp_path / "loop", test_share=0.4)
    assert (made.num_train, len(made), made.manifest.made_by["copies"]) == (18, 24, 6)


def test_sources_that_show_nothing_are_left_out_and_a_set_of_them_refused(tmp_path: Path, folders: Path) -> None:
    noise = np.random.default_rng(0).integers(15, 18, (12, 17, 31, 3), np.uint8)
    save_images(tmp_path / "black" / "noise", noise)
    save_images(tmp_path / "black" / "red", np.full((12, 17, 31, 3), [200, 0, 0], np.uint8))
    said: list[str] = []
    made = capture_images(tmp_path / "set", folders, tmp_path / "black", say=said.append)
    assert "2 folders were left out, with all frames of a single color: black/noise, black/red." in said
    assert sorted(s.name for s in made.manifest.sources) == [f"images/{name}" for name in "abcde"]
    with pytest.raises(ValueError, match=r"these images show nothing: every frame is of a single color"):
        capture_images(tmp_path / "nothing", tmp_path / "black")


@pytest.mark.parametrize(("folders_of", "images"), [(1, 17), (17, 1)])
def test_too_few_images_are_refused_before_they_are_read(
    tmp_path: Path, frame_set: FrameSet, monkeypatch: pytest.MonkeyPatch, folders_of: int, images: int
) -> None:
    monkeypatch.setattr(media, "WorkerPool", None)
    for i in range(folders_of):
        save_images(tmp_path / "in" / str(i), frame_set.frames[i : i + images])
    with pytest.raises(
        ValueError, match=r"at least 16 frames to train on and 2 others .* give 15 and 2; give more images"
    ):
        capture_images(tmp_path / "set", tmp_path / "in")
