import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaegan_core.data.batches import TrainBatches, to_frames, to_images
from vaegan_core.data.contact_sheet import contact_sheet
from vaegan_core.data.frames import (
    FRAMES_FILE,
    MANIFEST_FILE,
    FrameManifest,
    FrameSet,
    Source,
    hash_frames,
    write_manifest,
)

CPU = torch.device("cpu")


def numbered(count: int) -> np.ndarray:
    """Frames uint8 [count, 2, 2, 3] that hold their own index."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 2, 3))


def test_every_frame_survives_the_way_to_images_and_back() -> None:
    frames = torch.arange(256, dtype=torch.uint8).repeat(3).reshape(1, 16, 16, 3)
    images = to_images(frames)
    assert images.shape == (1, 3, 16, 16)
    assert (float(images.min()), float(images.max())) == (-1.0, 1.0)
    assert torch.equal(to_frames(images), frames)


def test_images_out_of_range_are_clipped() -> None:
    assert to_frames(torch.tensor([-3.0, 0.0, 3.0]).reshape(1, 3, 1, 1)).flatten().tolist() == [0, 128, 255]


def test_an_epoch_is_every_frame_once() -> None:
    batches = TrainBatches(numbered(30), 10, seed=0, device=CPU)
    epochs = [torch.cat([batches.indices(3 * epoch + i) for i in range(3)]).tolist() for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(30))
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("batch_size", [7, 64])
def test_batches_straddle_epochs(batch_size: int) -> None:
    batches = TrainBatches(numbered(10), batch_size, seed=0, device=CPU)
    order = torch.cat([batches.indices(step) for step in range(10)])
    for epoch in torch.split(order, 10):
        assert sorted(epoch.tolist()) == list(range(10))


def test_a_batch_is_a_function_of_seed_and_step_alone() -> None:
    walked = TrainBatches(numbered(10), 4, seed=3, device=CPU)
    in_turn = [walked.indices(step).tolist() for step in range(20)]
    for step in (19, 2, 11):
        assert TrainBatches(numbered(10), 4, seed=3, device=CPU).indices(step).tolist() == in_turn[step]
        assert walked.indices(step).tolist() == in_turn[step]
    assert TrainBatches(numbered(10), 4, seed=4, device=CPU).indices(0).tolist() != in_turn[0]


def test_a_batch_holds_the_images_of_its_indices() -> None:
    batches = TrainBatches(numbered(10), 4, seed=0, device=CPU)
    assert to_frames(batches[5])[:, 0, 0, 0].tolist() == batches.indices(5).tolist()


def test_frames_are_those_of_the_manifest(frame_set: FrameSet) -> None:
    frame_set.verify()
    assert len(frame_set.train) + len(frame_set.test) == len(frame_set) == 300
    assert len(frame_set.fingerprint) == 16


def test_changed_frames_are_noticed(frame_set_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(frame_set_dir, tmp_path / "copy")
    frames = np.load(copy / FRAMES_FILE)
    frames[7, 3, 3, 1] ^= 1
    np.save(copy / FRAMES_FILE, frames)
    with pytest.raises(ValueError, match="SHA-256"):
        FrameSet.open(copy).verify()


def small_set(directory: Path) -> Path:
    frames = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    directory.mkdir()
    np.save(directory / FRAMES_FILE, frames)
    sources = (Source(name="a", split="train", start=0, count=16), Source(name="b", split="test", start=16, count=4))
    sha256 = hash_frames(frames)
    write_manifest(directory, FrameManifest(height=8, width=8, sources=sources, made_by={}, sha256=sha256))
    return directory


@pytest.mark.parametrize("trick", ["plainly", "with the time of before", "in a copy"])
def test_a_set_whose_frames_changed_does_not_open(trick: str, tmp_path: Path) -> None:
    directory = small_set(tmp_path / "set")
    FrameSet.open(directory)
    if trick == "in a copy":
        directory = shutil.copytree(directory, tmp_path / "copy")
    path = directory / FRAMES_FILE
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-5] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    if trick != "plainly":
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"SHA-256 .*frames.npy was changed or damaged"):
            FrameSet.open(directory)


def test_frames_are_read_whole_once_for_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, verified = small_set(tmp_path / "set"), []
    monkeypatch.setattr(FrameSet, "verify", lambda self: verified.append(self.path))
    for _ in range(3):
        FrameSet.open(directory)
    assert verified == [directory]
    copy = shutil.copytree(directory, tmp_path / "copy")
    FrameSet.open(copy)
    assert verified == [directory, copy]


def test_damaged_frame_sets_are_refused(frame_set_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no frame set at .*; make one with"):
        FrameSet.open(tmp_path)
    copy = shutil.copytree(frame_set_dir, tmp_path / "copy")
    frames = np.load(copy / FRAMES_FILE)
    np.save(copy / FRAMES_FILE, frames[:-1])
    with pytest.raises(ValueError, match=r"damaged: frames.npy must hold uint8 \(300, 17, 31, 3\)"):
        FrameSet.open(copy)
    (copy / FRAMES_FILE).write_bytes((frame_set_dir / FRAMES_FILE).read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        FrameSet.open(copy)
    manifest = json.loads((frame_set_dir / MANIFEST_FILE).read_text())
    (copy / MANIFEST_FILE).write_text(json.dumps(manifest | {"unknown": 1}))
    with pytest.raises(ValueError, match="unknown"):
        FrameSet.open(copy)


@pytest.mark.parametrize(
    ("height", "width", "cell", "color"),
    [(1080, 1920, (90, 160), 128), (960, 12, (160, 2), 128), (33, 61, (66, 122), 0)],
)
def test_a_contact_sheet_is_small_whatever_the_frames(
    tmp_path: Path, height: int, width: int, cell: tuple[int, int], color: int
) -> None:
    """Frames of 1920x1080 from 100 sources made one of 10 GB. Shrunk frames are averaged, enlarged ones are exact."""
    frames = np.zeros((2, height, width, 3), np.uint8)
    frames[:, ::2] = 255
    sources = tuple(Source(name=split, split=split, start=i, count=1) for i, split in enumerate(("train", "test")))
    manifest = FrameManifest(height=height, width=width, sources=sources, made_by={}, sha256="")
    contact_sheet(FrameSet(frames, manifest), tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape[:2] == (2 * (cell[0] + 2), 200 + 12 * (cell[1] + 2))
    assert sheet[3, 200, 0] == pytest.approx(color, abs=8)


def test_a_mirrored_frame_is_the_frame_left_to_right_and_half_of_them_are() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (500, 2, 3, 3), dtype=np.uint8)
    plain, mirrors = (TrainBatches(frames, 100, 3, CPU, horizontal_flip=flip) for flip in (False, True))
    mirrored = []
    for step in range(10):
        assert mirrors.indices(step).tolist() == plain.indices(step).tolist()
        for index, image, other in zip(plain.indices(step).tolist(), plain[step], mirrors[step], strict=True):
            assert torch.equal(to_frames(image[None])[0], torch.from_numpy(frames[index]))
            assert torch.equal(other, image) or torch.equal(other, image.flip(2))
            mirrored.append((index, not torch.equal(other, image)))
    epochs = dict(mirrored[:500]), dict(mirrored[500:])
    assert all(abs(sum(epoch.values()) - 250) < 4 * math.sqrt(125) for epoch in epochs)
    assert epochs[0] != epochs[1]
    again = TrainBatches(frames, 100, 3, CPU, horizontal_flip=True)
    assert torch.equal(again[7], mirrors[7])
