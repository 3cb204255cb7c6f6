"""A picture of a frame set for people, with frames of every source."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from vaegan_core.data.batches import evenly_spaced
from vaegan_core.data.frames import FrameSet


def contact_sheet(frame_set: FrameSet, path: Path, *, per_source: int = 12, max_sources: int = 100) -> None:
    """Writes a PNG to `path`: a labeled row per source, with `per_source` evenly spaced frames of it."""
    height, width = frame_set.manifest.height, frame_set.manifest.width
    zoom = max(1, round(100 / width))
    label, cell_width, cell_height = 200, zoom * width + 2, max(zoom * height + 2, 24)
    sources = [s for s in frame_set.manifest.sources if s.count][:max_sources]
    sheet = Image.new("RGB", (label + per_source * cell_width, len(sources) * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, source in enumerate(sources):
        top = row * cell_height
        color = "black" if source.split == "train" else "red"
        draw.text((4, top + 1), f"{source.name}\n{source.split}, {source.count} frames", fill=color, font_size=10)
        for column, index in enumerate(evenly_spaced(source.count, per_source)):
            image = Image.fromarray(frame_set.frames[source.start + index]).resize((zoom * width, zoom * height), 0)
            sheet.paste(image, (label + column * cell_width, top))
    sheet.save(path)
