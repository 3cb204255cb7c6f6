"""Which files are found in folders and lists, and what their sources are called."""

import os
from pathlib import Path
from typing import Any

import pytest
from media_captures import capture_images

from vaegan_core.data.media.files import find_images, find_videos, natural


def names(sources: list[Any]) -> dict[str, tuple[str, ...]]:
    return {source.name: source.files for source in sources}


def touch(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def test_videos_are_named_by_the_way_to_them(tmp_path: Path) -> None:
    touch(tmp_path, "x/2.mp4", "x/10.MP4", "x/deep/1.mkv", "x/notes.txt", "x/._2.mp4", "x/.hidden/a.mp4", "y/2.mp4")
    none = tmp_path / "set"
    assert list(names(find_videos([tmp_path / "x"], none))) == ["2.mp4", "10.MP4", "deep/1.mkv"]
    both = ["x/2.mp4", "x/10.MP4", "x/deep/1.mkv", "y/2.mp4"]
    assert list(names(find_videos([tmp_path / "y", tmp_path / "x"], none))) == both
    assert list(names(find_videos([tmp_path / "x", tmp_path / "x" / "2.mp4", tmp_path / "y"], none))) == both
    assert list(names(find_videos([tmp_path / "x" / "10.MP4"], none))) == ["10.MP4"]


def test_images_are_grouped_by_their_folder(tmp_path: Path) -> None:
    touch(tmp_path, "in/b2.png", "in/b10.JPG", "in/b1.webp", "in/readme.md", "in/in/a.png", "in/set/contact_sheet.png")
    found = names(find_images([tmp_path / "in"], tmp_path / "in" / "set"))
    assert found == {"in": ("a.png",), "in/": ("b1.webp", "b2.png", "b10.JPG")}


def test_a_folder_that_links_lead_to_twice_is_taken_once(tmp_path: Path) -> None:
    touch(tmp_path, "in/z/a.png", "elsewhere/b.png")
    (tmp_path / "in" / "a link").symlink_to(tmp_path / "in" / "z")
    (tmp_path / "in" / "z" / "circle").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "other").symlink_to(tmp_path / "elsewhere")
    assert names(find_images([tmp_path / "in"], tmp_path / "set")) == {"other": ("b.png",), "z": ("a.png",)}


def test_what_is_read_cannot_be_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(ValueError, match="in is both what is read and what is to be written; write to another"):
        find_images([tmp_path / "in"], tmp_path / "link")


def test_a_list_may_name_what_is_missing_and_that_is_a_bad_file(tmp_path: Path, folders: Path) -> None:
    listing = tmp_path / "list.txt"
    images = [f"{folders.name}/{name}/{i}.png" for name in "abc" for i in range(10)]
    listing.write_bytes("\ufeff".encode() + "\r\n".join([*images, "", f"{folders.name}/a/gone.png"]).encode())
    made = capture_images(tmp_path / "set", listing)
    assert made.manifest.made_by["bad_files"] == {"a/gone.png": "No such file or directory"}
    assert len(made) == 30


def test_names_that_are_not_unicode_are_no_obstacle(tmp_path: Path, folders: Path) -> None:
    for i in range(2):
        os.rename(os.fsencode(folders / "a" / f"{i}.png"), os.fsencode(folders / "a") + b"/caf\xe9%d.png" % i)
    os.rename(os.fsencode(folders / "a"), os.fsencode(folders) + b"/\xe9")
    made = capture_images(tmp_path / "set", folders)
    assert "\\udce9" in {s.name for s in made.manifest.sources}
    assert len(made) == 60


@pytest.mark.parametrize(
    ("left", "passed"),
    [
        ("@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", True),
        ("deep/#recycle/old/1.jpg", True),
        ("$RECYCLE.BIN/1.jpg", True),
        ("__MACOSX/album/1.jpg", True),
        ("Catalog Previews.lrdata/1.jpg", True),
        ("album/Thumbnails/1.jpg", True),
        ("album/AlbumArtSmall.jpg", True),
        ("thumbs/1.jpg", False),
    ],
)
def test_what_systems_keep_beside_peoples_files_is_passed_over_and_counted(
    tmp_path: Path, left: str, passed: bool
) -> None:
    """A folder of thumbnails with no pictures beside it is a person's own."""
    touch(tmp_path / "in", "album/1.jpg", "album/2.jpg", left)
    said: list[str] = []
    found = names(find_images([tmp_path / "in"], tmp_path / "set", said.append))
    assert sum(len(files) for files in found.values()) == (2 if passed else 3)
    assert [line.split(",")[0] for line in said] == (["Passed over 1 of the images"] if passed else [])


@pytest.mark.parametrize("find", [find_videos, find_images])
def test_nothing_to_find_is_an_error(tmp_path: Path, find: Any) -> None:
    with pytest.raises(ValueError, match="nowhere does not exist; give folders"):
        find([tmp_path / "nowhere"], tmp_path / "set")
    with pytest.raises(ValueError, match=r"no (videos|images) found in .*; their names must end in one of: \.\w+ "):
        find([tmp_path], tmp_path / "set")
    (tmp_path / "list.txt").write_bytes(b"\0\1\2")
    with pytest.raises(ValueError, match="must be a list of files, one on a line"):
        find([tmp_path / "list.txt"], tmp_path / "set")


def test_natural_order() -> None:
    assert sorted(["b", "a10", "a2", "a02", "a1b", "a1a", "10", "9"], key=natural) == [
        "9",
        "10",
        "a1a",
        "a1b",
        "a02",
        "a2",
        "a10",
        "b",
    ]
