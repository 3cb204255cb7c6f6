from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from vaegan_core.data.media.pictures import fit_picture, read_picture, reason_of

HALVES = np.zeros((8, 16, 3), np.uint8)
"""Left half red, right half blue."""
HALVES[:, :8], HALVES[:, 8:] = (200, 0, 0), (0, 0, 200)


def plain(value: Any, dtype: type = np.uint8) -> np.ndarray:
    """[8, 16] or [8, 16, channels] of one value."""
    return np.broadcast_to(np.array(value, dtype), (8, 16, *np.shape(value))).copy()


def palette(transparent: bool) -> Image.Image:
    image = Image.fromarray(np.where(HALVES[:, :, 0] > 0, 1, 2).astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 10, 20, 30, 200, 100, 50])
    if transparent:
        image.info["transparency"] = 2
    return image


PICTURES: dict[str, tuple[Image.Image, str, list[int], list[int]]] = {
    "rgb": (Image.fromarray(plain([10, 20, 30])), "a.png", [10, 20, 30], [10, 20, 30]),
    "one bit": (Image.fromarray(plain(255)).convert("1"), "a.png", [255] * 3, [255] * 3),
    "gray": (Image.fromarray(plain(77)), "a.png", [77] * 3, [77] * 3),
    "gray and alpha": (Image.fromarray(plain([200, 128]), "LA"), "a.png", [100] * 3, [100] * 3),
    "rgba": (Image.fromarray(plain([200, 100, 50, 128])), "a.png", [100, 50, 25], [100, 50, 25]),
    "rgba, transparent": (Image.fromarray(plain([200, 100, 50, 0])), "a.webp", [0] * 3, [0] * 3),
    "palette": (palette(False), "a.png", [10, 20, 30], [200, 100, 50]),
    "palette with a transparent color": (palette(True), "a.gif", [10, 20, 30], [0, 0, 0]),
    "cmyk": (Image.fromarray(plain([0, 255, 255, 0]), "CMYK"), "a.tif", [255, 0, 0], [255, 0, 0]),
    "cmyk jpeg": (Image.fromarray(plain([0, 255, 255, 0]), "CMYK"), "a.jpg", [254, 0, 0], [254, 0, 0]),
    "16 bits": (Image.fromarray(plain(0x8040, np.uint16)), "a.png", [128] * 3, [128] * 3),
    "16 bits tiff": (Image.fromarray(plain(0xFFFF, np.uint16)), "a.tif", [255] * 3, [255] * 3),
    "16 bits big endian": (Image.fromarray(plain(0x2010, ">u2")), "a.tif", [32] * 3, [32] * 3),
    "16 bits pgm": (Image.fromarray(plain(0x8040, np.uint16)), "a.pgm", [128] * 3, [128] * 3),
    "tga": (Image.fromarray(HALVES), "a.tga", [200, 0, 0], [0, 0, 200]),
    "lossless webp": (Image.fromarray(HALVES), "a.webp", [200, 0, 0], [0, 0, 200]),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_picture_becomes_the_right_rgb(tmp_path: Path, name: str) -> None:
    image, file, left, right = PICTURES[name]
    image.save(tmp_path / file, **({"lossless": True, "exact": True} if file.endswith("webp") else {}))
    read, several = read_picture(tmp_path / file, 8, 16)
    assert (read.mode, read.size, several) == ("RGB", (16, 8), False)
    pixels = np.asarray(read).astype(int)
    assert np.abs(pixels[:, :4] - left).max() <= 1
    assert np.abs(pixels[:, -4:] - right).max() <= 1


def test_16_bit_color_is_scaled(tmp_path: Path) -> None:
    """A PNG with 16 bits for each of red, green and blue, which Pillow can read and not write."""
    import av

    frame = av.VideoFrame.from_ndarray(plain([0x8040, 0x4020, 0xFFFF], np.uint16), "rgb48le").reformat(format="rgb48be")
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 16, 8, "rgb48be", Fraction(1)
    (tmp_path / "a.png").write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode()]))
    assert read_picture(tmp_path / "a.png", 8, 16)[0].getpixel((0, 0)) == (128, 64, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    """The picture is stored as the camera would: turned back, with a note how to turn it."""
    quadrants = np.zeros((32, 64, 3), np.uint8)
    quadrants[:16, :32], quadrants[:16, 32:], quadrants[16:, :32] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    stored = {
        1: quadrants,
        2: quadrants[:, ::-1],
        3: quadrants[::-1, ::-1],
        4: quadrants[::-1],
        5: quadrants.swapaxes(0, 1),
        6: np.rot90(quadrants, 1),
        7: quadrants[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(quadrants, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a.{suffix}", exif=exif, quality=95)
    read = np.asarray(read_picture(tmp_path / f"a.{suffix}", 8, 16)[0]).astype(int)
    assert read.shape == (32, 64, 3)
    for corner, color in (((2, 2), [200, 0, 0]), ((2, -3), [0, 200, 0]), ((-3, 2), [0, 0, 200]), ((-3, -3), [0] * 3)):
        assert np.abs(read[corner] - color).max() < 40


def test_of_an_animation_the_first_picture_is_taken(tmp_path: Path) -> None:
    pictures = [Image.fromarray(plain([value] * 3)) for value in (50, 100, 150)]
    for file in ("a.gif", "a.webp", "a.png", "a.tif"):
        options: dict[str, Any] = {"lossless": True} if file == "a.webp" else {}
        pictures[0].save(tmp_path / file, save_all=True, append_images=pictures[1:], **options)
        read, several = read_picture(tmp_path / file, 8, 16)
        assert several
        assert read.getpixel((5, 5)) == (50, 50, 50)


@pytest.mark.parametrize(
    ("values", "dtype", "reason"), [(0.5, np.float32, "float pixels"), (70000, np.int32, "32-bit pixels")]
)
def test_pixels_without_a_known_range_are_refused(tmp_path: Path, values: Any, dtype: type, reason: str) -> None:
    Image.fromarray(plain(values, dtype)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=reason):
        read_picture(tmp_path / "a.tif", 8, 16)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tif", "ppm"])
def test_a_cut_picture_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole.{suffix}")
    data = (tmp_path / f"whole.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(data[: len(data) // 2])
    read_picture(tmp_path / f"whole.{suffix}", 8, 16)
    with pytest.raises((OSError, ValueError)) as caught:
        read_picture(tmp_path / f"cut.{suffix}", 8, 16)
    assert reason_of(caught.value)


def test_reasons_are_short_and_name_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image\n" * 100)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "program.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    Image.fromarray(HALVES).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    reasons = {}
    for name in ("empty", "text", "folder", "program", "missing", "bomb"):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            read_picture(tmp_path / f"{name}.png", 8, 16)
        reasons[name] = reason_of(caught.value)
    assert reasons == {
        "empty": "empty file (0 bytes)",
        "text": "not a picture that Pillow can read",
        "folder": "not a regular file",
        "program": "not a picture that Pillow can read",
        "missing": "No such file or directory",
        "bomb": "more than 120 pixels, too many to be safe for memory; shrink it first",
    }


def test_crop_keeps_the_middle() -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, :20], wide[:, 20:40], wide[:, 40:] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    image, reshaped = fit_picture(Image.fromarray(wide), 10, 10, "crop")
    assert (image.size, reshaped) == ((10, 10), True)
    assert (np.asarray(image)[:, 3:-3] == [0, 200, 0]).all()


@pytest.mark.parametrize("turned", [False, True])
def test_letterbox_keeps_all_between_black_bars(turned: bool) -> None:
    wide = np.full((20, 60, 3), 200, np.uint8)
    image, reshaped = fit_picture(Image.fromarray(wide.swapaxes(0, 1) if turned else wide), 30, 30, "letterbox")
    pixels = np.asarray(image)
    pixels = pixels.swapaxes(0, 1) if turned else pixels
    assert reshaped
    assert (pixels[10:20] == 200).all()
    assert (pixels[:10] == 0).all()
    assert (pixels[20:] == 0).all()


@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_the_same_aspect_is_only_resized(fit: Any) -> None:
    image, reshaped = fit_picture(Image.fromarray(HALVES), 32, 64, fit)
    assert (image.size, reshaped) == ((64, 32), False)
    assert np.abs(np.asarray(image).astype(int)[:, [0, -1]] - [[200, 0, 0], [0, 0, 200]]).max() <= 1


def test_pixels_that_are_not_square_count_as_they_are_shown() -> None:
    """Columns twice as wide as rows are high: 20 x 20 pixels are shown as 40 x 20."""
    square = Image.fromarray(np.full((20, 20, 3), 200, np.uint8))
    assert not fit_picture(square, 10, 20, "crop", 2.0)[1]
    boxed, reshaped = fit_picture(square, 20, 20, "letterbox", 2.0)
    assert reshaped
    assert [int(v) for v in np.asarray(boxed)[:, 10, 0]] == [0] * 5 + [200] * 10 + [0] * 5


def test_reduction_is_antialiased(tmp_path: Path) -> None:
    """A fine chequerboard becomes its mean, not a pattern of its own; also where JPEG is decoded at reduced size."""
    board = (np.indices((480, 960)).sum(0) % 2 * 255).astype(np.uint8)
    for file in ("a.png", "a.jpg"):
        Image.fromarray(board).save(tmp_path / file, quality=100)
        image, _ = fit_picture(read_picture(tmp_path / file, 17, 34)[0], 17, 34, "crop")
        assert np.abs(np.asarray(image).astype(int) - 127).max() <= 3


def srgb_profile(*, swapped: bool) -> bytes:
    """The profile of sRGB, or that of a screen whose red and green are swapped."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if not swapped:
        return data
    data = data.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    return data.replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ").replace(b"----", b"gXYZ")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_colors_are_converted_from_a_files_profile(tmp_path: Path, suffix: str, mode: str) -> None:
    if (suffix, mode) in {("jpg", "P"), ("jpg", "RGBA"), ("webp", "P"), ("tif", "P")}:
        pytest.skip("Pillow does not write it")
    image = Image.new("RGB", (16, 8), (200, 60, 40))
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    for swapped, expected in ((True, (60, 200, 40)), (False, (200, 60, 40))):
        options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
        image.save(tmp_path / f"a.{suffix}", icc_profile=srgb_profile(swapped=swapped), **options)
        read = read_picture(tmp_path / f"a.{suffix}", 8, 16)[0]
        assert np.abs(np.subtract(read.getpixel((5, 5)), expected)).max() <= 3


@pytest.mark.parametrize(
    "metadata",
    [
        {"text": "x" * 3_000_000},
        {"icc_profile": srgb_profile(swapped=False) + bytes(2_000_000)},
        {"icc_profile": b"nonsense"},
        {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()},
        {"exif": b"Exif\0\0nonsense"},
        {"exif": b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"},
    ],
    ids=["text", "large profile", "broken profile", "profile of others", "broken exif", "cut exif"],
)
def test_metadata_are_no_reason_to_refuse_a_sound_picture(tmp_path: Path, metadata: dict[str, Any]) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", metadata.pop("text", ""), zip=True)
    Image.new("RGB", (16, 8), (200, 60, 40)).save(tmp_path / "a.png", pnginfo=info, **metadata)
    assert read_picture(tmp_path / "a.png", 8, 16)[0].getpixel((5, 5)) == (200, 60, 40)
