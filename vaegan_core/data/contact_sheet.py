"""A picture of a frame set for people, with frames of every source."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from vaegan_core.data.batches import evenly_spaced
from vaegan_core.data.frames import FrameSet

SMALL, LARGE = 100, 160
"""Pixels of a longer side: smaller frames are enlarged to about the first, larger ones shrunk to the second."""


def contact_sheet(frame_set: FrameSet, path: Path, *, per_source: int = 12, max_sources: int = 100) -> None:
    """Writes a PNG to `path`: a labeled row per source, with `per_source` evenly spaced frames of it.

    Its size and memory, 140 MB at most, do not depend on the size of the frames.
    """
    longer = max(frame_set.manifest.height, frame_set.manifest.width)
    zoom = min(max(1, round(SMALL / longer)), LARGE / longer)
    width, height = (max(1, round(zoom * side)) for side in (frame_set.manifest.width, frame_set.manifest.height))
    way = Image.Resampling.NEAREST if zoom >= 1 else Image.Resampling.BOX
    label, cell_width, cell_height = 200, width + 2, max(height + 2, 24)
    sources = [s for s in frame_set.manifest.sources if s.count][:max_sources]
    sheet = Image.new("RGB", (label + per_source * cell_width, len(sources) * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, source in enumerate(sources):
        top = row * cell_height
        color = "black" if source.split == "train" else "red"
        draw.text((4, top + 1), f"{source.name}\n{source.split}, {source.count} frames", fill=color, font_size=10)
        for column, index in enumerate(evenly_spaced(source.count, per_source)):
            image = Image.fromarray(frame_set.frames[source.start + index]).resize((width, height), way)
            sheet.paste(image, (label + column * cell_width, top))
    sheet.save(path)
