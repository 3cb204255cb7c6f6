import gc
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from clips import cut, enlarged, write_clip
from PIL import Image

from vaegan_core.data.frames import FrameSet
from vaegan_core.data.media.pictures import read_picture
from vaegan_core.data.media.videos import Every, VideoReader


@pytest.fixture(scope="module")
def frames(frame_set: FrameSet) -> np.ndarray:
    """60 real frames, uint8 [60, 136, 248, 3]; all differ."""
    return enlarged(frame_set.frames[:60])


@pytest.fixture(scope="module")
def clip(frames: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 frames a second, a key frame a second."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames)


def read(path: Path, every: str = "1", threads: int = 1) -> tuple[list[np.ndarray], list[str]]:
    reader = VideoReader(path, Every.parse(every), threads=threads)
    return [np.asarray(image) for image, _ in reader.frames(lambda _: None)], reader.damage


def which(read: list[np.ndarray], frames: np.ndarray) -> list[int]:
    """The number of the frame that each one read looks like; -1 for one that is like none."""
    small = frames[:, ::8, ::8].astype(np.float32)
    found = []
    for image in read:
        difference = np.abs(small - image[::8, ::8]).mean((1, 2, 3))
        found.append(int(difference.argmin()) if difference.min() < 8 else -1)
    return found


def test_frames_come_out_as_they_went_in(clip: Path, frames: np.ndarray) -> None:
    back, damage = read(clip)
    assert damage == []
    assert len(back) == len(frames)
    assert np.abs(np.stack(back).astype(float) - frames).mean((1, 2, 3)).max() < 4
    assert which(back, frames) == list(range(60))


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ("key", list(range(0, 60, 10))),
        ("1s", list(range(0, 60, 10))),
        ("0.5s", list(range(0, 60, 5))),
        ("2.5s", [0, 25, 50]),
        ("7", list(range(0, 60, 7))),
        ("100", [0]),
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_takes_the_right_frames(
    clip: Path, frames: np.ndarray, every: str, expected: list[int], threads: int
) -> None:
    assert which(read(clip, every, threads)[0], frames) == expected


def test_time_stamps_that_a_container_rounds_are_not_missed(tmp_path: Path, frames: np.ndarray) -> None:
    """Matroska rounds 1/12 s to 0.083 s: the third of a quarter of a second must still be frame 3, 6, …"""
    clip = write_clip(tmp_path / "clip.mkv", frames, rate=12)
    assert which(read(clip, "0.0834s")[0], frames)[:24] == list(range(24))


def write_transparent(path: Path, codec: str, pixels: str, rgba: np.ndarray) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.height, stream.width = rgba.shape[:2]
        stream.pix_fmt = pixels
        frame = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format=pixels)
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return path


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mov", "qtrle", "argb"),
        ("a.mov", "png", "rgba"),
        ("a.mov", "prores_ks", "yuva444p10le"),
        ("a.mkv", "ffv1", "yuva420p"),
        ("a.avi", "utvideo", "gbrap"),
    ],
)
def test_transparency_becomes_black_as_in_pictures(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    """Where nothing is to be seen, whatever color the encoder had left there was shown."""
    rgba = np.full((64, 64, 4), (200, 100, 50, 255), np.uint8)
    rgba[:, 32:, 3] = np.repeat([128, 0], 32)[:, None]
    [image], damage = read(write_transparent(tmp_path / name, codec, pixels, rgba))
    assert damage == []
    Image.fromarray(rgba).save(tmp_path / "a.png")
    picture, _ = read_picture(tmp_path / "a.png", 64, 64)
    assert np.abs(image.astype(int) - np.asarray(picture)).max() <= 2


def test_the_fourth_byte_of_raw_pixels_in_an_avi_is_no_transparency(tmp_path: Path) -> None:
    rgba = np.full((64, 64, 4), (200, 100, 50, 0), np.uint8)
    [image], _ = read(write_transparent(tmp_path / "a.avi", "rawvideo", "bgra", rgba))
    assert np.array_equal(image, rgba[..., :3])


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "1.5", "s", "1m", "keys"])
def test_every_refuses_what_means_nothing(text: str) -> None:
    with pytest.raises(ValueError, match="every must be key, a time like 1s"):
        Every.parse(text)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotation_is_applied(tmp_path: Path, frames: np.ndarray, quarters: int) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frames[:2], rotation=90 * quarters)
    back, _ = read(clip)
    expected = np.rot90(frames[0], quarters)
    assert back[0].shape == expected.shape
    assert np.abs(back[0].astype(float) - expected).mean() < 4


@pytest.mark.parametrize(
    ("a", "b", "c", "d", "expected"),
    [
        (-1, 0, 0, 1, lambda image: image[:, ::-1]),
        (1, 0, 0, -1, lambda image: image[::-1]),
        (0, 1, 1, 0, lambda image: image.swapaxes(0, 1)),
        (0, -1, -1, 0, lambda image: image[::-1, ::-1].swapaxes(0, 1)),
    ],
)
def test_mirroring_is_applied(
    tmp_path: Path, frames: np.ndarray, a: int, b: int, c: int, d: int, expected: Any
) -> None:
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    back, _ = read(write_clip(tmp_path / "clip.mp4", frames[:1], matrix=matrix))
    assert np.abs(back[0].astype(float) - expected(frames[0])).mean() < 4


def test_the_aspect_of_pixels_is_told_and_turns_with_the_frame(tmp_path: Path, frames: np.ndarray) -> None:
    for rotation, aspect in ((0, 2.0), (90, 0.5)):
        clip = write_clip(tmp_path / f"{rotation}.mp4", frames[:1], pixel_aspect=2, rotation=rotation)
        assert [a for _, a in VideoReader(clip, Every("key")).frames(lambda _: None)] == [aspect]


def test_what_is_no_video_says_why(tmp_path: Path, frames: np.ndarray) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    whole = write_clip(tmp_path / "whole.mov", frames)  # its index comes last
    cut(tmp_path / "cut.mov", whole, 0.9)
    with wave.open(str(tmp_path / "sound.mp4"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    reasons = {
        "empty.mp4": "empty file",
        "text.mp4": "holds no video|not a video",
        "cut.mov": "cut off before its index",
        "sound.mp4": "no video",
    }
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=reason):
            read(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing.mp4")


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mp4", "libx264"), (".mkv", "libx264"), (".ts", "libx264"), (".avi", "mpeg4")]
)
def test_of_a_cut_video_the_sound_frames_are_kept(tmp_path: Path, frames: np.ndarray, suffix: str, codec: str) -> None:
    whole = write_clip(tmp_path / f"whole{suffix}", frames, codec=codec)
    back, damage = read(cut(tmp_path / f"cut{suffix}", whole, 0.6))
    found = which(back, frames)
    assert 25 <= len(found) <= 45
    assert found[:25] == list(range(25))
    assert found == sorted(set(found))  # the last ones may miss a neighbor that came later in the file
    assert damage or suffix == ".ts"  # a stream made to be cut: nothing in it tells that there was more
    keys = which(read(tmp_path / f"cut{suffix}", "key")[0], frames)
    assert {0, 10, 20} <= set(keys) <= {0, 10, 20, 30, 40}


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_after_a_damaged_place_it_goes_on_at_the_next_key_frame(tmp_path: Path, frames: np.ndarray, codec: str) -> None:
    data = bytearray(write_clip(tmp_path / "clip.mp4", frames, codec=codec).read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 20] = bytes(len(data) // 20)
    (tmp_path / "damaged.mp4").write_bytes(data)
    back, damage = read(tmp_path / "damaged.mp4")
    found = which(back, frames)
    assert damage
    assert -1 not in found
    assert found == sorted(set(found))
    assert found[:20] == list(range(20))
    assert found[-10:] == list(range(50, 60))
    assert len(found) < 60


def test_frames_do_not_outlive_their_turn(clip: Path) -> None:
    """PyAV's side data and their frame hold each other: a frame asked for them would wait for the collector."""
    gc.collect()
    gc.disable()
    try:
        assert len(read(clip)[0]) == 60
        assert gc.collect() < 30
    finally:
        gc.enable()


def test_the_position_in_the_file_is_told(clip: Path) -> None:
    positions: list[int] = []
    for _ in VideoReader(clip, Every("key")).frames(positions.append):
        pass
    assert positions == sorted(positions)
    assert clip.stat().st_size * 0.9 < positions[-1] < clip.stat().st_size


RGB = (200, 60, 40)


@pytest.mark.parametrize(
    ("size", "colorspace", "named", "pixels"),
    [
        ((720, 1280), Colorspace.ITU709, True, "yuv420p"),
        ((720, 1280), Colorspace.ITU709, False, "yuv420p"),
        ((1280, 720), Colorspace.ITU709, False, "yuv420p"),
        ((480, 640), Colorspace.ITU601, True, "yuv420p"),
        ((480, 640), Colorspace.ITU601, False, "yuv420p"),
        ((480, 640), Colorspace.ITU601, True, "yuvj420p"),
        ((720, 1280), Colorspace.BT2020, True, "yuv420p10le"),
    ],
)
def test_colors_are_those_that_players_show(
    tmp_path: Path, size: tuple[int, int], colorspace: Colorspace, named: bool, pixels: str
) -> None:
    """Also of a video that does not name its color matrix, as screen recorders and converters write them."""
    full = ColorRange.JPEG if pixels == "yuvj420p" else ColorRange.MPEG
    write_colors(tmp_path / "a.mp4", size, pixels, colorspace, full, named=named)
    assert np.abs(np.subtract(read(tmp_path / "a.mp4")[0][0][100, 100].tolist(), RGB)).max() <= 4


@pytest.mark.parametrize("transfer", [ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67])
def test_hdr_is_not_washed_out(tmp_path: Path, transfer: ColorTrc) -> None:
    """The same numbers stand for stronger colors in HDR; shown as they are, they would be dull."""
    write_colors(tmp_path / "a.mp4", (720, 1280), "yuv420p10le", Colorspace.BT2020, ColorRange.MPEG, transfer=transfer)
    red, green, blue = read(tmp_path / "a.mp4")[0][0][100, 100].tolist()
    assert red >= 225
    assert red - max(green, blue) > 150


def write_colors(
    path: Path,
    size: tuple[int, int],
    pixels: str,
    colorspace: Colorspace,
    color_range: ColorRange,
    *,
    named: bool = True,
    transfer: ColorTrc | None = None,
) -> None:
    """A video of a single frame in `RGB`, whose header names how colors are coded or not."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "4"})
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        context: Any = stream.codec_context
        plain = av.VideoFrame.from_ndarray(np.full((*size, 3), RGB, np.uint8), "rgb24")
        frame = plain.reformat(format=pixels, dst_colorspace=colorspace, dst_color_range=color_range)
        if named:
            context.colorspace = frame.colorspace = colorspace
            context.color_range = frame.color_range = color_range
        else:
            frame.colorspace, frame.color_range = 2, 0
        if transfer:
            context.color_trc, context.color_primaries = transfer, ColorPrimaries.BT2020
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
