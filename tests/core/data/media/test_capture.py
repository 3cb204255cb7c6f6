"""Frame sets from videos and images, with real frames: bad files, splits, interruptions, outputs."""

import fcntl
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import cut
from media_captures import capture_images, capture_videos, contents, save_images
from PIL import Image

from vaegan_core.data.frames import FrameSet
from vaegan_core.data.media import assemble
from vaegan_core.data.media import capture as media
from vaegan_core.data.media.parts import MediaSettings
from vaegan_core.data.writer import FrameSetWriter


def test_one_intact_and_one_damaged_video_become_a_frame_set(tmp_path: Path, clips: Path, frame_set: FrameSet) -> None:
    intact = tmp_path / "intact.mp4"
    intact.write_bytes((clips / "a.mp4").read_bytes())
    damaged = cut(tmp_path / "damaged.mp4", clips / "b.mp4", 0.7)
    made = capture_videos(tmp_path / "set", intact, damaged)
    made.verify()
    counts = {s.name: s.count for s in made.manifest.sources}
    assert {s.split for s in made.manifest.sources} == {"train", "test"}
    assert counts["intact.mp4"] == 20
    assert 10 <= counts["damaged.mp4"] < 22
    made_by = made.manifest.made_by
    assert made_by["bad_files"] == {}
    assert "incomplete data" in made_by["damaged_files"]["damaged.mp4"]
    for source, original in zip(
        sorted(made.manifest.sources, key=lambda s: s.name == "damaged.mp4"), (0, 1), strict=True
    ):
        start = frame_set.manifest.sources[original].start
        count = min(source.count, 10)
        back = made.frames[source.start : source.start + count].astype(float)
        assert np.abs(back - frame_set.frames[start : start + count]).mean() < 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.mp4", "intact.mp4", "set"]


def test_bad_files_are_skipped_named_and_counted(tmp_path: Path, clips: Path) -> None:
    (clips / "empty.mp4").touch()
    (clips / "text.mp4").write_text("not a video")
    try:
        with pytest.raises(ValueError, match=r"2 of 5 videos are bad, more than the allowed share of 0.1") as caught:
            capture_videos(tmp_path / "set", clips)
        assert "allow_bad 0.4" in str(caught.value)
        assert "  empty.mp4: empty file (0 bytes)" in str(caught.value).splitlines()
        assert not (tmp_path / "set").exists()
        said: list[str] = []
        made = capture_videos(tmp_path / "set", clips, allow_bad=0.4, say=said.append)
        assert "Resuming: 5 of 5 parts are done." in said
    finally:
        (clips / "empty.mp4").unlink()
        (clips / "text.mp4").unlink()
    assert list(made.manifest.made_by["bad_files"]) == ["empty.mp4", "text.mp4"]
    assert made.manifest.made_by["files"] == 5
    assert sorted(s.name for s in made.manifest.sources) == ["a.mp4", "b.mp4", "c.mp4"]


def test_nothing_but_bad_files_is_an_error_whatever_is_allowed(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.mp4").touch()
    with pytest.raises(ValueError, match="none of the 3 videos could be used"):
        capture_videos(tmp_path / "set", tmp_path, allow_bad=1)
    assert not (tmp_path / "set").exists()


def test_images_keep_their_pixels_and_natural_order(tmp_path: Path, folders: Path, frame_set: FrameSet) -> None:
    made = capture_images(tmp_path / "set", folders)
    assert len(made.sources("test")) == 1
    assert sorted(s.name for s in made.manifest.sources) == list("abcde")
    for source in made.manifest.sources:
        at = 12 * "abcde".index(source.name)
        assert (made.frames[source.start : source.start + 12] == frame_set.frames[at : at + 12]).all()
    assert made.manifest.made_by["split_by"] == "source"
    assert made.manifest.made_by["reshaped_files"] == 0


def test_the_same_files_give_the_same_set_whatever_the_order_and_the_workers(tmp_path: Path, folders: Path) -> None:
    listing = tmp_path / "images.txt"
    listing.write_text("\n".join(str(p.relative_to(tmp_path)) for p in sorted(folders.rglob("*.png"), reverse=True)))
    sets = [
        capture_images(tmp_path / "a", *(folders / n for n in "abcde"), workers=1),
        capture_images(tmp_path / "b", *(folders / n for n in "edcba"), workers=3),
    ]
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    sets.append(capture_images(tmp_path / "c", listing, folders / "a" / "3.png"))
    assert {s.manifest.sha256 for s in sets} == {sets[0].manifest.sha256}


def test_a_single_source_is_cut_in_time(tmp_path: Path, clips: Path) -> None:
    said: list[str] = []
    made = capture_videos(tmp_path / "set", clips / "a.mp4", test_share=0.2, say=said.append)
    whole = capture_videos(tmp_path / "all", clips)
    (a,) = [s for s in whole.manifest.sources if s.name == "a.mp4"]
    assert [(s.name, s.split, s.count) for s in made.manifest.sources] == [
        ("a.mp4 (first part)", "train", 16),
        ("a.mp4 (last part)", "test", 4),
    ]
    assert (made.frames == whole.frames[a.start : a.start + 20]).all()
    assert made.manifest.made_by["split_by"] == "time"
    assert any(line.startswith("Only one source, a.mp4: its first 16 frames are for training") for line in said)


def test_too_few_frames_of_videos_say_what_helps(tmp_path: Path, clips: Path) -> None:
    with pytest.raises(ValueError, match=r"give 5 and 3; give more videos, or take more of their frames with every"):
        capture_videos(tmp_path / "set", clips, settings=MediaSettings("videos", height=17, width=31))
    assert not (tmp_path / "set").exists()


def test_other_aspects_are_counted_and_kept_whole_by_letterbox(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(100, 250, (20, 40, 20, 3), np.uint8)
    save_images(tmp_path / "a", noise[:16])
    save_images(tmp_path / "b", noise[16:])
    settings = MediaSettings("images", height=20, width=20, fit="letterbox")
    made = capture_images(tmp_path / "set", tmp_path / "a", tmp_path / "b", settings=settings)
    assert made.manifest.made_by["reshaped_files"] == 20
    assert (made.frames[:, :, [0, 19]] == 0).all()
    assert (made.frames[:, :, 5:15] > 50).all()


def test_no_more_than_asked_for_of_each_source(tmp_path: Path, folders: Path, clips: Path) -> None:
    images = capture_images(tmp_path / "a", folders, settings=MediaSettings("images", 17, 31, max_per_source=5))
    videos = capture_videos(tmp_path / "b", clips, settings=MediaSettings("videos", 17, 31, "crop", "1", 9))
    assert {s.count for s in images.manifest.sources} == {5}
    assert {s.count for s in videos.manifest.sources} == {9}


# ---------------------------------------------------------------------------------------------------------------------
# Interruptions

KILLED = """
import os, signal, sys
from pathlib import Path
from vaegan_core.data.media.capture import capture_media
from vaegan_core.data.media.files import find_images
from vaegan_core.data.media.parts import MediaSettings

def progress(done, total):
    if sys.argv[3] == "reading" and done >= 24:
        os.kill(os.getpid(), signal.SIGKILL)

def say(line):
    if sys.argv[3] == "assembling" and line.startswith("Putting"):
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    output = Path(sys.argv[2])
    sources = find_images([Path(sys.argv[1])], output)
    capture_media(output, sources, MediaSettings("images", 17, 31), progress=progress, say=say, workers=1)
"""


@pytest.mark.parametrize("moment", ["reading", "assembling"])
def test_a_killed_capture_goes_on_and_ends_as_if_nothing_had_happened(
    tmp_path: Path, folders: Path, moment: str
) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    output = tmp_path / "out" / "set"
    done = subprocess.run([sys.executable, tmp_path / "killed.py", folders, output, moment], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not output.exists()
    said: list[str] = []
    capture_images(output, folders, say=said.append)
    (resuming,) = [line for line in said if line.startswith("Resuming: ")]
    assert resuming.startswith("Resuming: 5 of 5" if moment == "assembling" else ("Resuming: 2", "Resuming: 3"))
    capture_images(tmp_path / "undisturbed" / "set", folders)
    assert contents(output) == contents(tmp_path / "undisturbed" / "set")
    assert [path.name for path in output.parent.iterdir()] == ["set"]


def test_ctrl_c_ends_the_workers_and_keeps_what_is_done(tmp_path: Path, folders: Path) -> None:
    def interrupt(done: int, _total: int) -> None:
        if done >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture_images(tmp_path / "set", folders, progress=interrupt, workers=2)
    assert not (tmp_path / "set").exists()
    said: list[str] = []
    settings = MediaSettings("images", height=20, width=20)
    capture_images(tmp_path / "set", folders, settings=settings, say=said.append)
    assert sum("unfinished capture with other settings" in line for line in said) == 1
    assert [p.name.split("-")[0] for p in tmp_path.iterdir() if p.name.startswith(".")] == [".set.parts"]


def test_a_file_that_changed_meanwhile_is_read_again(tmp_path: Path, folders: Path) -> None:
    (folders / "a" / "0.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a/0\.png: empty file"):
        capture_images(tmp_path / "set", folders, allow_bad=0)
    Image.new("RGB", (31, 17), (9, 8, 7)).save(folders / "a" / "0.png")
    made = capture_images(tmp_path / "set", folders, allow_bad=0)
    (a,) = [s for s in made.manifest.sources if s.name == "a"]
    assert (made.frames[a.start] == [9, 8, 7]).all()


DEADLY = """
import os
import av, PIL.Image

def wrap(module):
    opened = module.open
    def deadly(file, *args, **options):
        if "deadly" in str(file):
            os.abort()
        if "secret" in str(file) and "KEEP_SECRETS" in os.environ:
            raise PermissionError(13, "Permission denied")
        return opened(file, *args, **options)
    module.open = deadly

wrap(av)
wrap(PIL.Image)
"""


def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker processes import a sitecustomize.py that makes them abort, as a bug in a decoder would."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


def test_a_file_that_could_not_be_read_is_tried_again(
    tmp_path: Path, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap(tmp_path, monkeypatch)
    Image.new("RGB", (31, 17)).save(folders / "b" / "secret.png")
    monkeypatch.setenv("KEEP_SECRETS", "1")
    with pytest.raises(ValueError, match=r"b/secret\.png: Permission denied"):
        capture_images(tmp_path / "set", folders, allow_bad=0)
    monkeypatch.delenv("KEEP_SECRETS")
    said: list[str] = []
    assert len(capture_images(tmp_path / "set", folders, allow_bad=0, say=said.append)) == 61
    assert "Resuming: 4 of 5 parts are done." in said


def test_a_file_that_kills_its_process_is_bad_and_no_other(
    tmp_path: Path, folders: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap(tmp_path, monkeypatch)
    for name in ("3 deadly.png", "5 deadly.png"):
        Image.new("RGB", (31, 17)).save(folders / "b" / name)
    made = capture_images(tmp_path / "images set", folders)
    died = f"worker process died (exit code -{signal.SIGABRT.value})"
    assert made.manifest.made_by["bad_files"] == {"b/3 deadly.png": died, "b/5 deadly.png": died}
    assert len(made) == 60

    (tmp_path / "deadly.mp4").write_bytes((clips / "a.mp4").read_bytes())
    made = capture_videos(tmp_path / "videos set", clips, tmp_path / "deadly.mp4", allow_bad=0.3)
    assert list(made.manifest.made_by["bad_files"].values()) == [died]
    assert len(made.manifest.sources) == 3


# ---------------------------------------------------------------------------------------------------------------------
# Outputs


def test_a_finished_set_is_recognized_and_another_refused(tmp_path: Path, folders: Path) -> None:
    capture_images(tmp_path / "set", folders)
    before = contents(tmp_path / "set")
    said: list[str] = []
    capture_images(tmp_path / "set", folders, say=said.append)
    assert said == [f"{tmp_path / 'set'} already holds these frames."]
    assert contents(tmp_path / "set") == before
    for change in ({"seed": 1}, {"settings": MediaSettings("images", 18, 31)}):
        with pytest.raises(ValueError, match="already holds another frame set"):
            capture_images(tmp_path / "set", folders, **change)
    (folders / "a" / "0.png").unlink()
    with pytest.raises(ValueError, match="already holds another frame set"):
        capture_images(tmp_path / "set", folders)


def test_two_captures_of_one_output_do_not_meet(tmp_path: Path, folders: Path) -> None:
    errors: list[str] = []

    def again(_done: int, _total: int) -> None:
        if not errors:
            with pytest.raises(ValueError, match="another process is making") as caught:
                capture_images(tmp_path / "set", folders)
            errors.append(str(caught.value))

    assert len(capture_images(tmp_path / "set", folders, progress=again)) == 60
    assert len(errors) == 1


def test_a_capture_that_waited_while_another_finished_does_not_go_on(
    tmp_path: Path, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def finished_meanwhile(file: Any, how: int) -> None:
        shutil.rmtree(Path(file.name).parent)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", finished_meanwhile)
    with pytest.raises(ValueError, match="another process is making"):
        capture_images(tmp_path / "set", folders)


def test_an_output_may_be_a_link(tmp_path: Path, folders: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "set").symlink_to(tmp_path / "disk" / "frames")
    made = capture_images(tmp_path / "set", folders)
    assert len(FrameSet.open(tmp_path / "set")) == len(made)
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["frames"]


def test_an_output_that_cannot_be_written_is_said_clearly(tmp_path: Path, folders: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write .*/file/set: Not a directory; choose another output"):
        capture_images(tmp_path / "file" / "set", folders)


def test_frames_go_through_memory_in_small_blocks(
    tmp_path: Path, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    append = FrameSetWriter.append

    def counted(writer: FrameSetWriter, frames: np.ndarray) -> None:
        sizes.append(len(frames))
        append(writer, frames)

    monkeypatch.setattr(assemble, "BLOCK", 5)
    monkeypatch.setattr(media, "IMAGES_PER_PART", 8)
    monkeypatch.setattr(FrameSetWriter, "append", counted)
    made = capture_images(tmp_path / "set", folders)
    assert sizes == [5, 3, 4] * 5
    assert len(made) == 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 4}, "height must be in 8-1080"),
        ({"every": "0"}, "every must be key"),
        ({"fit": "stretch"}, "fit must be crop or letterbox, but got 'stretch'"),
        ({"max_per_source": 0}, "max_per_source must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MediaSettings(**{"kind": "videos", "height": 17, "width": 31} | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_share": 0.0}, "test_share must"),
        ({"allow_bad": 1.5}, "allow_bad is"),
        ({"workers": 0}, "workers must be"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path: Path, folders: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        capture_images(tmp_path / "set", folders, **change)
