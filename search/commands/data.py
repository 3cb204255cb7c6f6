"""The commands `vaegan data …`, which make frame sets."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from search.commands.options import MAX_SEED, help_of
from search.terminal import errors, screen

data = typer.Typer(no_args_is_help=True, help="Make a frame set: packed uint8 frames, split by source, fingerprinted.")

Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Directory of the new frame set.")]
Size = Annotated[str, typer.Option(metavar="WxH", help="Width and height in pixels.")]


def _given(path: str) -> Path:
    """The path, unless it is empty, as an unset variable is: that would be the current folder with all in it."""
    if not path:
        raise typer.BadParameter("must name a folder or a file, but got ''")
    return Path(path)


Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH…", parser=_given, help="Folders (searched recursively), files, or .txt lists of files."
    ),
]
Fit = Annotated[
    str, typer.Option(metavar="crop|letterbox", help="For another aspect ratio: crop the sides, or add black bars.")
]
TestShare = Annotated[float, typer.Option(help="Share of the sources used for testing; at least one source.")]
SplitSeed = Annotated[
    int, typer.Option(min=0, max=MAX_SEED, help="The split depends on this seed, not on the order of the paths.")
]
MaxPerSource = Annotated[int | None, typer.Option(min=1, help="Take at most this many frames of each source.")]
AllowBad = Annotated[
    float, typer.Option(metavar="SHARE", help="Fail if more than this share of the files is unusable.")
]


SETTING = re.compile(r"\b(?:allow_bad|test_share|max_per_source)\b|\bevery(?= must be|, such as)")
"""What a message calls a setting that is an option here."""


def data_doom(
    output: Output,
    frames: Annotated[
        int, typer.Option(min=40, max=10**7, help="Number of frames, training and test together.")
    ] = 6000,
    size: Size = "61x33",
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="The same seed gives the same frames.")] = 0,
) -> None:
    """Capture real frames of a 3D shooter (ViZDoom with Freedoom's maps); test maps are disjoint from training maps."""
    from vaegan_core.data.doom.capture import capture_doom
    from vaegan_core.data.frames import FrameSet
    from vaegan_core.data.writer import same_capture

    width, height = _parse_size(size)
    settings: dict[str, Any] = {"num_frames": frames, "height": height, "width": width, "seed": seed}
    if same_capture(output, settings):
        frame_set = FrameSet.open(output)
        frame_set.verify()
        screen.say(f"{output} already holds these frames.")
    else:
        with screen.progress("Capturing frames", frames) as advance:
            frame_set = capture_doom(output, progress=advance, **settings)
    _finish_frames(output, frame_set, "map")


def data_videos(
    paths: Paths,
    output: Output,
    every: Annotated[
        str, typer.Option(metavar="key|1s|N", help="Key frames, one frame per time (1s, 0.5s), or every N-th frame.")
    ] = "key",
    size: Size = "61x33",
    fit: Fit = "crop",
    test_share: TestShare = 0.2,
    seed: SplitSeed = 0,
    max_per_source: MaxPerSource = None,
    allow_bad: AllowBad = 0.1,
) -> None:
    """Extract frames from videos; each video is a source, used for training or for testing.

    Rotation in a video's metadata is applied. Intact frames of a damaged video are kept. A video without usable frames
    is skipped and listed at the end. After Ctrl-C or a crash, the same command continues where it stopped. A single
    video is split: its last part is used for testing.
    """
    from vaegan_core.data.media.files import find_videos

    options = {"every": every, "fit": fit, "max_per_source": max_per_source}
    capture = {"test_share": test_share, "seed": seed, "allow_bad": allow_bad}
    _capture_media("videos", output, size, options, lambda: find_videos(paths, output, screen.say), capture)


def data_images(
    paths: Paths,
    output: Output,
    size: Size = "61x33",
    fit: Fit = "crop",
    test_share: TestShare = 0.2,
    seed: SplitSeed = 0,
    max_per_source: MaxPerSource = None,
    allow_bad: AllowBad = 0.1,
) -> None:
    """Read image files; each folder that directly contains images is a source, used for training or for testing.

    EXIF rotation is applied. Transparent areas become black, 16 bits become 8. The first picture of an animation or a
    multi-page file is used (for every frame of a GIF, use `data videos`). A file that cannot be read is skipped and
    listed at the end. After Ctrl-C or a crash, the same command continues where it stopped. A single folder is split:
    the last of its images by name are used for testing.
    """
    from vaegan_core.data.media.files import find_images

    options = {"fit": fit, "max_per_source": max_per_source}
    capture = {"test_share": test_share, "seed": seed, "allow_bad": allow_bad}
    _capture_media("images", output, size, options, lambda: find_images(paths, output, screen.say), capture)


def _capture_media(
    kind: str,
    output: Path,
    size: str,
    options: dict[str, Any],
    find: Callable[[], list[Any]],
    capture: dict[str, Any],
) -> None:
    from vaegan_core.data.media.capture import capture_media
    from vaegan_core.data.media.parts import MediaSettings

    width, height = _parse_size(size)
    title, per_unit = ("Reading videos (MB)", 1_000_000) if kind == "videos" else ("Reading images", 1)
    try:
        settings = MediaSettings(kind, height=height, width=width, **options)  # type: ignore[arg-type]
        sources = find()
        with screen.progress(title, None) as advance:
            frame_set = capture_media(
                output,
                sources,
                settings,
                progress=lambda done, total: advance(done // per_unit, max(1, total // per_unit)),
                say=screen.say,
                **capture,
            )
    except ValueError as error:
        raise ValueError(SETTING.sub(lambda found: f"--{found[0].replace('_', '-')}", str(error))) from None
    except KeyboardInterrupt:
        errors.say("Stopped; the same command continues from here.")
        raise typer.Exit(130) from None
    _say_what_became_of_files(frame_set, kind, settings.fit)
    by_time = frame_set.manifest.made_by["split_by"] == "time"
    _finish_frames(output, frame_set, "part" if by_time else "video" if kind == "videos" else "folder")


def _say_what_became_of_files(frame_set: Any, kind: str, fit: str) -> None:
    made_by = frame_set.manifest.made_by
    for what, name in (("were skipped as unusable", "bad_files"), ("are damaged", "damaged_files")):
        reasons = made_by[name]
        if reasons:
            screen.say(f"{len(reasons)} of {made_by['files']} {kind} {what}; the manifest lists all of them:")
            for file, reason in list(reasons.items())[:20]:
                screen.say(f"  {file}: {reason}")
    if made_by["reshaped_files"]:
        how = "cropped around the center" if fit == "crop" else "letterboxed"
        screen.say(f"{made_by['reshaped_files']} of {made_by['files']} {kind} had another aspect ratio and were {how}.")
    if made_by["files_with_several_pictures"]:
        screen.say(
            f"{made_by['files_with_several_pictures']} {kind} contain several pictures; the first of each was used."
        )


def _finish_frames(output: Path, frame_set: Any, noun: str) -> None:
    """Trains the feature network of a frame set and says what the set holds; `noun` is what a source is."""
    from vaegan_core.metrics.frame_features import ensure_features
    from vaegan_core.metrics.settings import training_minutes

    minutes = training_minutes(frame_set.manifest.height, frame_set.manifest.width)
    screen.say(f"The set's feature network is trained once, in about {minutes} min on a CPU core, less on several.")
    with screen.progress("Training the feature network", None) as advance:
        features = ensure_features(frame_set, progress=lambda done, total: advance(done, total))
    train, test = (len(frame_set.sources(split)) for split in ("train", "test"))
    screen.say(
        f"{output}: {frame_set.num_train} training frames of {train} {noun}{'s' * (train > 1)}, "
        f"{len(frame_set) - frame_set.num_train} test frames of {test} other {noun}{'s' * (test > 1)}, "
        f"{frame_set.manifest.width}x{frame_set.manifest.height}, fingerprint {frame_set.fingerprint}.\n"
        f"Trivial baselines: pixel MSE {features.baselines['mean_color_mse']:.4f} for each image painted its mean "
        f"color, {features.baselines['mean_image_mse']:.4f} for the mean training image. "
        f"Contact sheet: {output / 'contact_sheet.png'}."
    )


def _parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise ValueError(f"--size must look like 61x33 (width x height), but got {text!r}")
    return int(match[1]), int(match[2])


for name, command in (("doom", data_doom), ("videos", data_videos), ("images", data_images)):
    data.command(name, help=help_of(command))(command)
