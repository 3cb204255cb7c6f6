"""One picture of any kind to upright RGB, and to the size of a frame set's frames."""

from __future__ import annotations

import io
import math
import stat
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

Fit = Literal["crop", "letterbox"]

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP")
"""Formats that Pillow may open: none that starts a program (EPS), and none without pictures (HDF5, GRIB)."""
PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = 2**26, 2**28
"""Bytes of a PNG's texts or color profile that memory is safe for: Pillow refuses pictures with over 1 MB."""
SHARPNESS = 3.0
"""A picture may first be reduced by fast block averages to this many times the wanted size (Pillow: "fair")."""


def read_picture(path: Path, height: int, width: int) -> tuple[Image.Image, bool]:
    """The picture in a file, upright RGB, no smaller than fit_picture needs; and whether the file holds several.

    An animation, a multi-page file or a burst gives its first picture. Transparency becomes black; 16-bit values are
    divided by 256; colors are converted from the file's color profile to sRGB. Metadata that cannot be read is ignored.
    Raises an exception with the reason when there is no picture:
    OSError, ValueError, or anything else that Pillow raises for a damaged file.
    """
    check_file(path)
    with Image.open(path, formats=FORMATS) as image:
        several = bool(getattr(image, "is_animated", False))
        reduced = SHARPNESS * max(height, width) / min(image.size)
        image.draft(None, (math.ceil(image.width * reduced), math.ceil(image.height * reduced)))  # JPEG only
        kind = image.format
        image.load()
        with suppress(Exception):  # whatever damaged metadata make Pillow raise
            ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(_to_srgb(image), kind), several


def check_file(path: Path) -> None:
    """Raises OSError or ValueError when there is nothing to read: no such file, no permission, empty, not a file."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if status.st_size == 0:
        raise ValueError("empty file (0 bytes)")


def reason_of(error: Exception) -> str:
    """Why a file gave nothing, in one line of at most 200 characters, without its path."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that Pillow can read"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels, too many to be safe for memory; shrink it first"
    if strerror := getattr(error, "strerror", None):
        return str(strerror)
    return " ".join(str(error).split())[:200] or type(error).__name__


def _to_srgb(image: Image.Image) -> Image.Image:
    """The image in sRGB; unchanged without a color profile for its kind of pixels, and when that is sRGB already."""
    with suppress(Exception):  # whatever a damaged profile makes Pillow raise
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        if image.mode == "P":
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        if profile.profile.xcolor_space.strip() in image.mode and not _is_srgb(profile):
            mode = "RGBA" if image.mode == "RGBA" else "RGB"
            converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode=mode)
            assert converted is not None
            return converted
    return image


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    return "sRGB" in ImageCms.getProfileDescription(profile)


def _to_rgb(image: Image.Image, kind: str | None) -> Image.Image:
    if image.mode == "F":
        raise ValueError("float pixels have no known range; convert the file to 8 or 16 bits")
    if image.mode.startswith("I"):
        if image.mode == "I" and kind != "PPM":  # Pillow scales a PPM's own range to 16 bits
            raise ValueError("32-bit pixels have no known range; convert the file to 8 or 16 bits")
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        return on_black(image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def on_black(image: Image.Image) -> Image.Image:
    """RGB of an RGBA image, whose transparency becomes black."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")


def fit_picture(
    image: Image.Image, height: int, width: int, fit: Fit, pixel_aspect: float = 1.0
) -> tuple[Image.Image, bool]:
    """An RGB image at size (width, height), antialiased (Lanczos); and whether its aspect differed.

    If it did, "crop" keeps the largest centered part with the new aspect, "letterbox" all of it between black bars.
    `pixel_aspect` is the width of the image's pixels in units of their height.
    """
    shown_width, shown_height = image.width * pixel_aspect, image.height
    reshaped = abs(math.log(shown_width * height / (shown_height * width))) > 0.01
    if fit == "crop" or not reshaped:
        part_width = min(shown_width, shown_height * width / height) / pixel_aspect
        part_height = min(shown_height, shown_width * height / width)
        left, top = (image.width - part_width) / 2, (image.height - part_height) / 2
        box = (left, top, left + part_width, top + part_height)
        return image.resize((width, height), Image.Resampling.LANCZOS, box, SHARPNESS), reshaped
    scale = min(width / shown_width, height / shown_height)
    inner = (max(1, round(shown_width * scale)), max(1, round(shown_height * scale)))
    boxed = Image.new("RGB", (width, height), "black")
    whole = image.resize(inner, Image.Resampling.LANCZOS, None, SHARPNESS)
    boxed.paste(whole, ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return boxed, reshaped
