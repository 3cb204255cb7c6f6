import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vaegan_core.data import writer as capture
from vaegan_core.data.doom import capture as doom
from vaegan_core.data.doom import maps
from vaegan_core.data.doom.capture import capture_doom
from vaegan_core.data.doom.maps import doom_maps
from vaegan_core.data.doom.wanderer import Counts
from vaegan_core.data.frames import CONTACT_SHEET_FILE, FrameSet, Split, hash_frames
from vaegan_core.data.writer import FrameSetWriter, same_capture

SETTINGS: dict[str, Any] = {"num_frames": 60, "height": 17, "width": 31, "seed": 5}


def frames(count: int, value: int = 0) -> np.ndarray:
    return np.full((count, 4, 6, 3), value, np.uint8)


def write(path: Path, sources: dict[str, Split]) -> None:
    """A frame set with three frames of each source."""
    with FrameSetWriter(path, height=4, width=6) as writer:
        for name, split in sources.items():
            writer.add_source(name, split)
            writer.append(frames(3))
        writer.finish({})


def living_in(directory: Path) -> list[str]:
    """Processes (also the game's own) whose working directory is below `directory`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            cwd = os.readlink(process / "cwd")
        except OSError:
            continue
        if cwd.startswith(str(directory)):
            found.append(process.name)
    return found


def test_maps_of_the_splits_are_disjoint() -> None:
    train, test = doom_maps("train"), doom_maps("test")
    assert not {(m.wad, m.map, m.scenario) for m in train} & {(m.wad, m.map, m.scenario) for m in test}
    assert len({m.name for m in train + test}) == 68 + 7


def test_a_captured_set(frame_set: FrameSet, frame_set_dir: Path) -> None:
    assert frame_set.frames.shape == (300, 17, 31, 3)
    assert frame_set.num_train == 240
    assert hash_frames(frame_set.frames) == frame_set.manifest.sha256
    train, test = frame_set.sources("train"), frame_set.sources("test")
    assert len(train) >= 3
    assert len(test) >= 2
    assert not {s.name for s in train} & {s.name for s in test}
    assert [s.start for s in train + test] == np.cumsum([0] + [s.count for s in train + test])[:-1].tolist()
    assert frame_set.manifest.made_by["skipped_sources"] == {}
    assert [path.name for path in frame_set_dir.parent.iterdir()] == [frame_set_dir.name]


def test_captured_frames_differ(frame_set: FrameSet) -> None:
    frames = frame_set.frames.astype(np.float32)
    shuffled = frames[np.random.default_rng(0).permutation(len(frames))]
    assert np.abs(frames - shuffled).mean() > 20
    assert np.abs(np.diff(frames, axis=0)).mean((1, 2, 3)).min() > 1
    assert np.mean(frames.std((1, 2)).mean(1) < 5) < 0.1


def test_the_same_seed_gives_the_same_frames_with_any_number_of_workers(tmp_path: Path) -> None:
    one = capture_doom(tmp_path / "one", **SETTINGS, progress=lambda _: None, workers=1)
    two = capture_doom(tmp_path / "two", **SETTINGS, progress=lambda _: None, workers=2)
    assert one.manifest.sha256 == two.manifest.sha256
    assert one.manifest == two.manifest


def test_a_crashing_map_is_skipped_and_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its own configuration, ViZDoom 1.3.2 dies of a segmentation fault in multi_duel."""
    monkeypatch.setattr(maps, "TRAIN_SCENARIOS", ("multi_duel",))
    seen: list[int] = []
    frame_set = capture_doom(tmp_path / "set", **SETTINGS, progress=seen.append)
    assert len(frame_set) == 60
    assert frame_set.num_train == 48
    assert "died" in frame_set.manifest.made_by["skipped_sources"]["scenario/multi_duel"]
    assert seen[-1] == 60
    assert living_in(tmp_path) == []


def test_an_output_in_use_is_refused_unless_it_is_the_same_capture(frame_set_dir: Path) -> None:
    with pytest.raises(ValueError, match="must be new or empty"):
        capture_doom(frame_set_dir, **SETTINGS, progress=lambda _: None)
    assert same_capture(frame_set_dir, {"num_frames": 300, "height": 17, "width": 31, "seed": 0})
    assert not same_capture(frame_set_dir, SETTINGS)
    assert not same_capture(frame_set_dir / "missing", SETTINGS)


def interrupt(_: int) -> None:
    raise KeyboardInterrupt


def terminate(_: int) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("stop", "error"), [(interrupt, KeyboardInterrupt), (terminate, SystemExit)])
def test_an_interruption_leaves_nothing(
    tmp_path: Path, stop: Callable[[int], None], error: type[BaseException]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(error):
        capture_doom(tmp_path / "set", **SETTINGS, progress=stop, workers=2)
    assert list(tmp_path.iterdir()) == []
    assert multiprocessing.active_children() == []
    assert living_in(tmp_path) == []
    assert signal.getsignal(signal.SIGTERM) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from vaegan_core.data.writer import FrameSetWriter
with FrameSetWriter(Path(sys.argv[1]), height=4, width=6):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_capture_removes_what_a_killed_one_left_and_nothing_of_one_that_runs(tmp_path: Path) -> None:
    """A directory of the size of the frames stayed beside the output for good."""
    path = tmp_path / "a[b]"
    (tmp_path / ".a[b].partial-of-another-version").mkdir()
    for output in (path, tmp_path / "other"):
        assert subprocess.run([sys.executable, "-c", KILLED, output]).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 3
    with FrameSetWriter(path, height=4, width=6) as first:
        write(path, {"a": "train", "b": "test"})
        assert first.scratch.is_dir()
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names[:1] + names[2:] == [".a[b].partial-of-another-version", "a[b]"]
    assert names[1].startswith(".other.partial-")
    assert len(FrameSet.open(path)) == 6


def test_a_full_disk_is_said_clearly_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(capture, "write_manifest", full)
    with pytest.raises(ValueError, match="no space left for"):
        write(tmp_path / "set", {"a": "train", "b": "test"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_frames": 39}, "num_frames must be at least 40, but got 39"), ({"height": 4}, "height must be in 8-1080")],
)
def test_settings_out_of_range_are_refused(tmp_path: Path, change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        capture_doom(tmp_path / "set", **SETTINGS | change, progress=lambda _: None)


def test_a_writer_puts_sources_one_after_another(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with FrameSetWriter(tmp_path / "set", height=4, width=6) as writer:
        for name, value in (("a", 1), ("b", 2)):
            writer.add_source(name, "train")
            writer.append(frames(2, value))
            writer.append(frames(1, value))
        writer.add_source("c", "test")
        writer.append(frames(120, 3))
        frame_set = writer.finish({"command": "test"})
    frame_set.verify()
    assert [(s.name, s.start, s.count) for s in frame_set.manifest.sources] == [("a", 0, 3), ("b", 3, 3), ("c", 6, 120)]
    assert frame_set.train[:, 0, 0, 0].tolist() == [1, 1, 1, 2, 2, 2]
    assert (tmp_path / "set").stat().st_mode & 0o055 == 0o055 & ~os.umask(os.umask(0))
    assert Image.open(tmp_path / "set" / CONTACT_SHEET_FILE).size[0] > 12 * 6


@pytest.mark.parametrize("there", [True, False])
def test_an_output_may_be_a_link(tmp_path: Path, there: bool) -> None:
    """At the end of a capture to a link nothing but "Not a directory" was said."""
    (tmp_path / "disk").mkdir()
    if there:
        (tmp_path / "disk" / "frames").mkdir()
    (tmp_path / "set").symlink_to(tmp_path / "disk" / "frames")
    write(tmp_path / "set", {"a": "train", "b": "test"})
    assert len(FrameSet.open(tmp_path / "set")) == 6
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["frames"]
    assert (tmp_path / "set").is_symlink()


def test_an_output_where_a_disk_is_mounted_is_refused_before_anything_is_captured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be renamed to it, which was found out at the end."""
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "volume")
    (tmp_path / "volume").mkdir()
    with pytest.raises(ValueError, match=r"a disk is mounted at .*volume; choose a directory on that disk, such as "):
        FrameSetWriter(tmp_path / "volume", height=4, width=6)
    write(tmp_path / "volume" / "frames", {"a": "train", "b": "test"})


def test_a_writer_needs_both_splits_and_different_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs test frames"):
        write(tmp_path / "a", {"a": "train"})
    with FrameSetWriter(tmp_path / "b", height=4, width=6) as writer:
        writer.add_source("a", "train")
        with pytest.raises(ValueError, match="'a' comes twice"):
            writer.add_source("a", "train")
    assert list(tmp_path.iterdir()) == []


def test_a_map_that_crashes_once_is_tried_again_and_gives_the_same(tmp_path: Path) -> None:
    quotas = dict.fromkeys(doom_maps("train")[:2], 20)
    unlucky = next(iter(quotas))

    class Pool:
        """Every frame of a map shows its round; the first map crashes in the middle of its first attempt."""

        attempts = 0

        def run(self, jobs: Any) -> Any:
            for job in jobs:
                yield job, np.full((job.count // 2, 9, 16, 3), job.seed % 251, np.uint8)
                self.attempts += job.source == unlucky
                if job.source == unlucky and self.attempts == 1:
                    yield job, "worker process died (exit code -11)"
                    continue
                yield job, np.full((job.count // 2, 9, 16, 3), job.seed % 251, np.uint8)
                yield job, Counts()

    capture = doom._DoomCapture(quotas, 9, 16, 0, tmp_path, lambda _: None)
    capture.run(Pool())
    assert capture.skipped == {}
    assert capture.captured == quotas
    assert {capture._path(each).stat().st_size for each in quotas} == {20 * 9 * 16 * 3}
