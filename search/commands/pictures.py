"""The commands that show what a model makes: sample, reconstruct."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.commands.options import MAX_SEED
from search.terminal import counted, screen

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="models:/NAME@ALIAS or models:/NAME/VERSION, a run's id, or a model file or directory."
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Directory of the PNGs, new or empty.")]
Grid = Annotated[bool, typer.Option("--grid", help="Show all of them in one picture too, grid.png.")]


def sample(
    model: Model,
    output: Output,
    count: Annotated[int, typer.Option(metavar="N", min=1, max=10_000, help="Number of images.")] = 32,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="The same seed and count give the same images.")] = 0,
    grid: Grid = False,
    sampler: Annotated[
        str | None,
        typer.Option(metavar="fitted|prior", help="Default: fitted, or prior for a model without a fitted density."),
    ] = None,
) -> None:
    """Write images of a model's own as PNGs, decoded from the fitted density of z or from the prior N(0, I).

    The fitted one is the ex-post density (Ghosh et al. 2020): a Gaussian, or a mixture, fitted to z of training frames.
    """
    from search.paths import tracking_uri
    from search.promotion.pictures import check_empty, draw_samples, write_pictures
    from search.promotion.stored_model import open_model
    from vaegan_core.metrics.grids import png

    check_empty(output)
    with screen.stage("Drawing samples"):
        opened = open_model(model, tracking_uri())
        images = draw_samples(opened, count, seed, sampler)
        write_pictures(output, images, {"grid.png": png(images)} if grid else {})
    origin = {"fitted": "the density fitted to z of training frames", "prior": "the prior N(0, I)"}
    samples = f"{counted(count, 'sample')} of {_size(opened.size)}"
    screen.say(f"{output}: {samples} from {origin[sampler or opened.sampler]}, seed {seed}")


def reconstruct(
    model: Model,
    frames: Annotated[
        list[Path], typer.Argument(metavar="FRAMES…", help="Image files, or frame sets: 16 test frames of each.")
    ],
    output: Output,
    grid: Annotated[
        bool, typer.Option("--grid", help="Show the frames above their reconstructions in one picture too, grid.png.")
    ] = False,
    interpolate: Annotated[
        bool, typer.Option("--interpolate", help="The way from one frame to another, also in one row: strip.png.")
    ] = False,
) -> None:
    """Write a model's reconstructions of frames as PNGs, decoded from posterior means, in the order of the frames.

    Image files are cropped around the center and resized to the model's frames, as `data images` does. Of a frame set,
    16 test frames are taken, spread evenly. With --interpolate there must be exactly two frames (or one frame set: its
    first and last test frame), and 8 PNGs go from the one's reconstruction to the other's, evenly spaced in z.
    """
    from search.paths import tracking_uri
    from search.promotion import pictures
    from search.promotion.stored_model import open_model
    from vaegan_core.metrics.grids import png, png_of_pairs

    if grid and interpolate:
        raise ValueError("--interpolate shows its images in strip.png; leave out --grid")
    pictures.check_empty(output)
    with screen.stage("Reconstructing"):
        opened = open_model(model, tracking_uri())
        real = pictures.read_frames(frames, opened.size, **({"per_set": 2} if interpolate else {}))
        images = pictures.interpolate(opened, real) if interpolate else opened.decode(opened.encode(real))
        strip = {"strip.png": png(images)} if interpolate else {}
        pictures.write_pictures(output, images, {"grid.png": png_of_pairs(real, images)} if grid else strip)
    what = f"{len(images)} images between two frames" if interpolate else counted(len(images), "reconstruction")
    screen.say(f"{output}: {what} of {_size(opened.size)}")


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
