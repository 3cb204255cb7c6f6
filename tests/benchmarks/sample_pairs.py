"""Do the distances of samples agree with eyes? Pairs of sample grids of trained models, judged by looking at them.

    python tests/benchmarks/sample_models.py runs/frames/doom -o runs/sample-models --jobs 2
    python tests/benchmarks/sample_pairs.py runs/frames/doom runs/sample-models --sheets runs/sheets   the pictures
    python tests/benchmarks/sample_pairs.py runs/frames/doom runs/sample-models                        the tables

Each of the 30 models decodes z ~ N(0, I), z from the Gaussian fitted to q(z), and z ~ q(z|x) of training frames. Of
these 90 sets, 140 pairs are drawn: 50 of one model with two kinds of z, 50 of two models with N(0, I), 40 of any two.
A sheet shows ten pairs, each as two grids of twenty images, with nothing but the pair's number on it. Question: which
of the two looks more like frames of the game, that is, has ground, sky, walls or objects where a frame has them?
`judged_pairs.csv` holds the answers, given by one judge before any distance of these images had been computed;
`neither` where both looked like nothing, or alike. The sheets come out bit for bit as they were judged only from the
same models; trained anew on other hardware, the pictures differ in detail.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from vaegan_core.data.batches import as_tensor, evenly_spaced, to_frames, to_images
from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.distances import frechet_distance, gaussian_moments
from vaegan_core.metrics.frame_features import FrameFeatures, ensure_features, matched_kernel_distance
from vaegan_core.model.latent_density import LatentDensity
from vaegan_core.model.networks import Autoencoder
from vaegan_core.model.saved import load_model

JUDGED = Path(__file__).parent / "judged_pairs.csv"
KINDS = ("prior", "fitted", "posterior")
"""z ~ N(0, I), z from the fitted Gaussian, z ~ q(z|x) of training frames."""
IMAGES = 2_000
BLOCK = 500
PAIRS_ON_A_SHEET = 10
GRID = (4, 5)

Sets = dict[str, Tensor]
"""Images of one model by kind of z, uint8 [n, 3, H, W]; besides KINDS `other prior` and `other posterior`, from other
noise and other frames, and `mixture`, from ten fitted Gaussians."""
Item = tuple[str, str]
"""A model's name and a kind of z."""


class Pair(NamedTuple):
    """A judged pair, in the order of its sheet."""

    left: Item
    right: Item
    preferred: str


def judged() -> list[Pair]:
    """The pairs of `judged_pairs.csv`."""
    with JUDGED.open(newline="") as file:
        return [
            Pair((row["left_model"], row["left_z"]), (row["right_model"], row["right_z"]), row["preferred"])
            for row in csv.DictReader(file)
        ]


def draw_pairs(names: list[str]) -> list[tuple[Item, Item]]:
    """The 140 pairs, in random order, each in random order."""
    rng = random.Random(20261126)
    items = [(name, kind) for name in names for kind in KINDS]
    pairs: list[tuple[Item, Item]] = []
    seen: set[frozenset[Item]] = set()

    def add(a: Item, b: Item) -> None:
        key = frozenset((a, b))
        if a == b or key in seen:
            return
        seen.add(key)
        pairs.append((a, b) if rng.random() < 0.5 else (b, a))

    while len(pairs) < 50:
        name = rng.choice(names)
        first, second = rng.sample(KINDS, 2)
        add((name, first), (name, second))
    while len(pairs) < 100:
        one, other = rng.sample(names, 2)
        add((one, "prior"), (other, "prior"))
    while len(pairs) < 140:
        add(*rng.sample(items, 2))
    rng.shuffle(pairs)
    return pairs


@torch.inference_mode()
def image_sets(path: Path, frame_set: FrameSet) -> Sets:
    """Images of a stored model by kind of z."""
    model = load_model(path, (frame_set.manifest.height, frame_set.manifest.width)).autoencoder
    train = as_tensor(frame_set.train)
    chosen = torch.from_numpy(evenly_spaced(len(train), IMAGES))
    left = torch.ones(len(train), dtype=torch.bool)
    left[chosen] = False
    rest = left.nonzero().flatten()
    other = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(5))[:IMAGES]]
    (mean, variance), (other_mean, other_variance) = (_encoded(model, train[indices]) for indices in (chosen, other))
    generator = torch.Generator().manual_seed(7)
    z = mean + variance.sqrt() * torch.randn(mean.shape, generator=generator)
    other_z = other_mean + other_variance.sqrt() * torch.randn(other_mean.shape, generator=generator)
    noise, other_noise = (torch.randn(mean.shape, generator=generator) for _ in range(2))
    latents = {
        "prior": noise,
        "fitted": LatentDensity.fit(mean, variance).sample(noise),
        "posterior": z,
        "other prior": other_noise,
        "other posterior": other_z,
        "mixture": LatentDensity.fit(mean, variance, 10).sample(noise),
    }
    return {
        kind: torch.cat([to_frames(model.decoder(part)) for part in torch.split(z, BLOCK)]).permute(0, 3, 1, 2)
        for kind, z in latents.items()
    }


def _encoded(model: Autoencoder, frames: Tensor) -> tuple[Tensor, Tensor]:
    posteriors = [model.encoder(to_images(part)) for part in torch.split(frames, BLOCK)]
    return torch.cat([q.mean for q in posteriors]), torch.cat(
        [q.logvar.exp() for q in posteriors if q.logvar is not None]
    )


# --- Sheets -----------------------------------------------------------------------------------------------------------


def grid(images: Tensor, seed: int) -> Image.Image:
    """Twenty of the images, at one and a half times their size."""
    (rows, columns), (height, width) = GRID, images.shape[2:]
    some = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[: rows * columns]]
    pixels = some.view(rows, columns, 3, height, width).permute(0, 3, 1, 4, 2)
    picture = Image.fromarray(pixels.reshape(rows * height, columns * width, 3).numpy())
    return picture.resize((columns * width * 3 // 2, rows * height * 3 // 2), Image.Resampling.NEAREST)


def write_sheets(pairs: list[tuple[Item, Item]], sets: dict[str, Sets], directory: Path) -> None:
    """Sheets of ten pairs, without names."""
    directory.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(pairs), PAIRS_ON_A_SHEET):
        numbers = range(first, min(first + PAIRS_ON_A_SHEET, len(pairs)))
        grids = {
            n: [grid(sets[name][kind], seed + n) for (name, kind), seed in zip(pairs[n], (1000, 5000), strict=True)]
            for n in numbers
        }
        width, height = grids[first][0].size
        sheet = Image.new("RGB", (2 * (2 * width + 60), 5 * (height + 16)), "white")
        for place, n in enumerate(numbers):
            x, y = place % 2 * (2 * width + 60), place // 2 * (height + 16)
            ImageDraw.Draw(sheet).text((x + 2, y + height // 2), str(n), fill="black")
            for side, picture in enumerate(grids[n]):
                sheet.paste(picture, (x + 30 + side * (width + 14), y + 4))
        sheet.save(directory / f"sheet-{first // PAIRS_ON_A_SHEET:02d}.png")


# --- Tables -----------------------------------------------------------------------------------------------------------


def distances(features: FrameFeatures, sets: Sets) -> dict[str, dict[str, float]]:
    """Distances by kind of z: to training frames, and (`gap`) to the model's own reconstructions of other ones."""
    images = {kind: to_images(frames.permute(0, 2, 3, 1)) for kind, frames in sets.items()}
    points = {kind: features.space.project(torch.split(batch, BLOCK)) for kind, batch in images.items()}
    own = gaussian_moments([points["other posterior"]])
    layouts = features.layouts
    assert layouts is not None
    return {
        kind: {
            "layout_fd": layouts.frechet(layouts.space.project(torch.split(images[kind], BLOCK))),
            "samples_fd": features.frechet(points[kind]),
            "samples_kid": matched_kernel_distance(points[kind], features.reference),
            "gap": frechet_distance(*gaussian_moments([points[kind]]), *own),
        }
        for kind in sets
    }


def agreement(pairs: list[Pair], found: dict[str, dict[str, dict[str, float]]], key: str) -> tuple[int, int]:
    """Judged pairs in which the preferred side has the smaller distance, and their number."""
    decided = [pair for pair in pairs if pair.preferred != "neither"]
    agreed = 0
    for pair in decided:
        left, right = (found[name][kind][key] for name, kind in (pair.left, pair.right))
        agreed += (left < right) == (pair.preferred == "left")
    return agreed, len(decided)


def tables(found: dict[str, dict[str, dict[str, float]]], features: FrameFeatures) -> Iterator[str]:
    """Lines of Markdown."""
    pairs = judged()
    groups = {
        "all": pairs,
        "one model": [pair for pair in pairs if pair.left[0] == pair.right[0]],
        "N(0, I) of two models": [pair for pair in pairs if pair.left[1] == pair.right[1] == "prior"],
    }
    yield f"| agrees with the judge | {' | '.join(groups)} |\n|---{'|---' * len(groups)}|"
    for key in ("layout_fd", "samples_fd", "samples_kid", "gap"):
        counts = [agreement(group, found, key) for group in groups.values()]
        yield f"| {key} | {' | '.join(f'{a} of {n} ({a / n:.0%})' for a, n in counts)} |"
    yield (
        f"\nReal frames: layout_fd {features.baselines['floor_layout_fd']:.0f}, samples_fd {features.floor:.0f}. Mean "
        f"color: {features.baselines['mean_color_layout_fd']:.0f}, {features.baselines['mean_color_fd']:.0f}.\n"
    )
    kinds = ("prior", "fitted", "mixture", "posterior")
    yield "| model |" + "".join(f" {key}: {' / '.join(kinds)} |" for key in ("layout_fd", "samples_fd", "gap"))
    yield "|---|---|---|---|"
    for name, of in found.items():
        cells = (" / ".join(f"{of[kind][key]:.0f}" for kind in kinds) for key in ("layout_fd", "samples_fd", "gap"))
        yield f"| {name} | {' | '.join(cells)} |"
    moved = sorted(abs(of["other prior"]["layout_fd"] / of["prior"]["layout_fd"] - 1) for of in found.values())
    yield f"\nAnother z moves layout_fd by {moved[len(moved) // 2]:.1%} (median), {moved[-1]:.1%} (most)."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", type=Path)
    parser.add_argument("models", type=Path)
    parser.add_argument("--sheets", type=Path, help="write the pictures there, instead of the tables")
    arguments = parser.parse_args()
    frame_set = FrameSet.open(arguments.frames)
    paths = {path.stem: path for path in sorted(arguments.models.glob("*.safetensors"))}
    if arguments.sheets:
        sets = {name: image_sets(path, frame_set) for name, path in paths.items()}
        write_sheets(draw_pairs(list(paths)), sets, arguments.sheets)
        return
    features = ensure_features(frame_set)
    found = {name: distances(features, image_sets(path, frame_set)) for name, path in paths.items()}
    for line in tables(found, features):
        print(line)


if __name__ == "__main__":
    main()
