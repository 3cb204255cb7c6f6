"""Image grids of the report: sprites of a few trials under a byte budget."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from mlflow import MlflowClient, artifacts
from PIL import Image

from search.names import Outcome
from search.report.reported import Reported, on_front
from search.tracking.reader import TrialRun, images_among
from vaegan_core.evaluation import FITTED_SAMPLES, PRIOR_SAMPLES, RECONSTRUCTIONS

KINDS = {
    RECONSTRUCTIONS: "Reconstructions below their test frames",
    FITTED_SAMPLES: "Samples whose z comes from a density fitted to q(z)",
    PRIOR_SAMPLES: "Samples whose z comes from N(0, I)",
}
BUDGET = 6_000_000
"""Bytes of all pictures of a page before base64, which makes them a third larger."""
TRIALS = 60
STEPS = 8
"""The most trials with pictures, and steps of each."""
ROWS = 2
"""Rows of a grid that are shown: test frames and reconstructions, or two of samples."""
NEAREST = 9
"""Pixels from one line to the next, between frames of 8 rows, which are the smallest."""
WIDTH = 480
"""Pixels; wider grids are shrunk."""
THREADS = 8


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` items, evenly spread, first and last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(index * (len(items) - 1) / max(1, count - 1))] for index in range(count)]


def worth_showing(reported: Reported, count: int) -> list[TrialRun]:
    """The recommended trial and the front, then quantiles of the other ranks, then of those that ended otherwise."""
    ordered = reported.ordered
    first = [trial for trial in ordered if trial.number == reported.findings.recommended]
    front = [trial for trial in ordered if on_front(trial) and trial not in first]
    chosen = (first + spread(front, count - len(first)))[:count]
    numbers = {trial.number for trial in chosen}
    rest = [trial for trial in ordered if trial.number not in numbers and trial.outcome != Outcome.IMPOSSIBLE]
    return chosen + spread(rest, count - len(chosen)) if len(chosen) < count else chosen


def sprites(client: MlflowClient, reported: Reported, budget: int, count: int = TRIALS) -> dict[int, dict[str, Any]]:
    """Those of the trials in `worth_showing`, see `read_sprites`."""
    return read_sprites(client, worth_showing(reported, count), budget)


def read_sprites(
    client: MlflowClient, trials: Sequence[TrialRun], budget: int, steps: int = STEPS
) -> dict[int, dict[str, Any]]:
    """By trial number and kind: the steps and one WebP with the picture of each step below that of the last.

    Trials are read in parallel; those that do not fit the budget, in bytes, are left out. A picture that cannot be read
    is left out as well. Of more than `steps` some are taken, evenly spread; of one, the last.
    """
    found: dict[int, dict[str, Any]] = {}
    spent = 0
    with ThreadPoolExecutor(THREADS) as threads:
        for start in range(0, len(trials), THREADS):  # so that no more is read than fits
            block = trials[start : start + THREADS]
            for trial, kinds in zip(block, threads.map(partial(_read, client.tracking_uri, steps), block), strict=True):
                size = sum(len(sprite.webp) for sprite in kinds.values())
                if not kinds or spent + size > budget:
                    continue
                spent += size
                found[trial.number] = {kind: sprite.entry() for kind, sprite in kinds.items()}
            if spent > budget * 0.97:
                break
    return found


@dataclass(frozen=True)
class Sprite:
    """Pictures of one kind of a trial, one below the other."""

    webp: bytes
    steps: list[int]
    size: tuple[int, int]
    """Width and height of one of them, in pixels."""

    def entry(self) -> dict[str, Any]:
        source = f"data:image/webp;base64,{base64.b64encode(self.webp).decode()}"
        return {"steps": self.steps, "width": self.size[0], "height": self.size[1], "source": source}


def _read(tracking_uri: str, most: int, trial: TrialRun) -> dict[str, Sprite]:
    """Sprites by kind, straight from where the run's artifacts are: asking MLflow for each would cost three times as
    many requests."""
    try:
        listed = artifacts.list_artifacts(f"{trial.artifact_uri}/images", tracking_uri=tracking_uri)
    except Exception:  # also what clients of object stores raise
        return {}
    paths = images_among(item.path for item in listed)
    kinds = {}
    for kind in KINDS:
        there = sorted(step for key, step in paths if key == kind)
        steps = there[-1:] if most == 1 else spread(there, most)
        wanted = {step: f"{trial.artifact_uri}/images/{Path(paths[(kind, step)]).name}" for step in steps}
        pictures = dict(_pictures(tracking_uri, wanted))
        if pictures:
            kinds[kind] = _sprite(pictures)
    return kinds


def _pictures(tracking_uri: str, addresses: dict[int, str]) -> Iterator[tuple[int, Image.Image]]:
    with TemporaryDirectory() as directory:
        for step, address in addresses.items():
            try:
                path = artifacts.download_artifacts(address, dst_path=directory, tracking_uri=tracking_uri)
                image = Image.open(path).convert("RGB")
            except Exception:
                continue
            yield step, _shrunk(_first_rows(image))


def _first_rows(image: Image.Image) -> Image.Image:
    """The first rows of a grid whose frames have white lines of one pixel between them: evenly spaced, as the white
    rows of the frames themselves are not."""
    white, last = (np.asarray(image) == 255).all(axis=(1, 2)), image.height - 1
    spaces = (space for space in range(NEAREST, last) if last % space == 0 and white[::space].all())
    return image.crop((0, 0, image.width, min(last, ROWS * next(spaces, last)) + 1))


def _shrunk(image: Image.Image) -> Image.Image:
    if image.width <= WIDTH:
        return image
    return image.resize((WIDTH, max(1, round(image.height * WIDTH / image.width))), Image.Resampling.LANCZOS)


def _sprite(pictures: dict[int, Image.Image]) -> Sprite:
    width, height = size = next(iter(pictures.values())).size
    sheet = Image.new("RGB", (width, height * len(pictures)))
    for place, picture in enumerate(pictures.values()):
        sheet.paste(picture if picture.size == size else picture.resize(size), (0, place * height))
    buffer = io.BytesIO()
    sheet.save(buffer, format="WEBP", quality=80, method=4)
    return Sprite(buffer.getvalue(), list(pictures), size)
