"""Finds the files meant by folders, lists and files; their sources, names and natural order."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

VIDEO_EXTENSIONS = (
    ".3g2 .3gp .asf .avi .f4v .flv .h264 .h265 .hevc .m1v .m2ts .m2v .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv "
    ".rm .rmvb .ts .vob .webm .wmv .y4m"
)
IMAGE_EXTENSIONS = (
    ".apng .avif .bmp .dib .gif .heic .heif .j2k .jfif .jp2 .jpe .jpeg .jpg .pbm .pcx .pgm .png .pnm .ppm .qoi .sgi "
    ".tga .tif .tiff .webp"
)
SYSTEM_FOLDERS = frozenset(
    {"@eadir", "#recycle", "@recycle", "@tmp", "#snapshot", "@recently-snapshot", "$recycle.bin", "__macosx"}
    | {"system volume information", "lost+found", "network trash folder", "ipod photo cache"}
)
"""Folders in which systems and programs keep copies of people's files, in lower case."""
THUMBNAIL_FOLDERS = frozenset(
    {"thumb", "thumbs", "thumbnail", "thumbnails", "_thumb", "_thumbs", "_thumbnails", "previews"}
)
"""Folders that hold small copies when they lie beside pictures or videos, in lower case."""
SIDECAR = re.compile(r"(albumart(small|_\{.*)|synophoto_thumb_|synofile_thumb_).*", re.IGNORECASE)
"""Files that systems put beside people's own."""


@dataclass(frozen=True)
class SourceFiles:
    """A source's name, and the names of its files in `directory`, in natural order."""

    name: str
    directory: str
    files: tuple[str, ...]


def find_videos(
    paths: Sequence[Path], leave_out: Path, say: Callable[[str], None] = lambda _: None
) -> list[SourceFiles]:
    """Finds videos: every file is a source, named by its path from the deepest folder that holds all the paths.

    `paths` are folders, searched recursively, video files, and .txt lists of files. Hidden files and the folder
    `leave_out` are skipped, and so is what systems keep beside people's files, such as folders of thumbnails; `say`
    gets their number. Sources come in natural order, whatever the order of the paths.
    Raises ValueError for a path that does not exist or cannot be read, and when no video is found.
    """
    tops, files = _find(paths, VIDEO_EXTENSIONS, "videos", leave_out, say)
    root = os.path.commonpath(tops)
    sources = []
    for directory, names in files.items():
        prefix = os.path.relpath(directory, root)
        for name in names:
            sources.append(SourceFiles(printable(os.path.normpath(os.path.join(prefix, name))), directory, (name,)))
    return sorted(sources, key=lambda source: natural(source.name))


def find_images(
    paths: Sequence[Path], leave_out: Path, say: Callable[[str], None] = lambda _: None
) -> list[SourceFiles]:
    """Finds images: every folder that directly holds images is a source; the rest is as in find_videos.

    A source that is the folder all names start from is called by that folder's own name and a slash.
    """
    tops, files = _find(paths, IMAGE_EXTENSIONS, "images", leave_out, say)
    root = os.path.commonpath(tops)
    sources = []
    for directory, names in files.items():
        name = f"{os.path.basename(root)}/" if directory == root else os.path.relpath(directory, root)
        sources.append(SourceFiles(printable(name), directory, tuple(sorted(names, key=natural))))
    return sorted(sources, key=lambda source: natural(source.name))


def natural(name: str) -> tuple[str, str]:
    """A sort key by which numbers within names count as numbers: 2 before 10."""
    return re.sub(r"[0-9]+", _with_length, name), name


def _with_length(match: re.Match[str]) -> str:
    digits = match[0].lstrip("0")
    return f"{len(digits):05d}{digits}"


def printable(name: str) -> str:
    """A file's name as valid Unicode: invalid bytes become escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _find(
    paths: Sequence[Path], extensions: str, kind: str, leave_out: Path, say: Callable[[str], None]
) -> tuple[set[str], dict[str, set[str]]]:
    """The folders that names are relative to, and the file names by folder; all absolute."""
    tops: set[str] = set()
    files: dict[str, set[str]] = {}
    passed: dict[str, int] = {}
    for path in paths:
        if os.path.realpath(path) == os.path.realpath(leave_out):
            raise ValueError(f"{path} is both what is read and what is to be written; write to another directory")
        if path.is_dir():
            tops.add(os.path.abspath(path))
            _search(path, frozenset(extensions.split()), os.path.abspath(leave_out), files, passed)
            continue
        if not path.exists():
            raise ValueError(f"{path} does not exist; give folders, files, or .txt lists of files")
        for file in _listed(path) if path.suffix.lower() == ".txt" else [os.path.abspath(path)]:
            directory, name = os.path.split(file)
            tops.add(directory)
            files.setdefault(directory, set()).add(name)
    if passed:
        names = ", ".join(sorted(passed))
        say(f"Passed over {sum(passed.values())} of the {kind}, kept by systems beside people's own, in {names}.")
    if not files:
        where = ", ".join(str(path) for path in paths) or "no path at all"
        raise ValueError(f"no {kind} found in {where}; their names must end in one of: {extensions}")
    return tops, files


def _search(
    path: Path, extensions: frozenset[str], leave_out: str, files: dict[str, set[str]], passed: dict[str, int]
) -> None:
    """Adds the files in `path` and below; symbolic links are followed, but no folder is searched twice.

    `passed` gets the number of files that are not people's own, by their folder's name.
    """

    def refuse(error: OSError) -> None:
        raise ValueError(f"cannot read folder {error.filename}: {error.strerror}; make it readable or leave it out")

    seen: set[str] = set()
    systems: set[str] = set()
    for directory, below, names in os.walk(os.path.abspath(path), followlinks=True, onerror=refuse):
        real = os.path.realpath(directory)
        if real in seen or directory == leave_out:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(n for n in below if not n.startswith("."))
        below.sort(key=lambda n: os.path.islink(os.path.join(directory, n)))  # the folder itself before links to it
        chosen = {n for n in names if not n.startswith(".") and os.path.splitext(n)[1].lower() in extensions}
        own = set() if directory in systems else {n for n in chosen if not SIDECAR.fullmatch(n)}
        systems.update(
            os.path.join(directory, n) for n in below if directory in systems or _is_of_a_system(n, beside=bool(own))
        )
        if own:
            files.setdefault(directory, set()).update(own)
        if chosen - own:
            folder = os.path.basename(directory)
            passed[folder] = passed.get(folder, 0) + len(chosen - own)


def _is_of_a_system(folder: str, *, beside: bool) -> bool:
    """Whether a folder is no person's own; `beside`: whether it lies beside files that it may hold copies of."""
    name = folder.lower()
    return name in SYSTEM_FOLDERS or name.endswith(".lrdata") or (beside and name in THUMBNAIL_FOLDERS)


def _listed(path: Path) -> list[str]:
    """The files in a list, one per line, relative to the list's own folder. Raises ValueError if it cannot be read."""
    if not path.is_file():
        raise ValueError(f"{path} must be a list of files, one on a line, but is a device or a pipe")
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise ValueError(f"cannot read list {path}: {error.strerror}; make it readable or leave it out") from error
    if "\0" in text:
        raise ValueError(f"{path} must be a list of files, one on a line, but is not a text file")
    folder = os.path.abspath(path.parent)
    return [os.path.normpath(os.path.join(folder, line.strip())) for line in text.split("\n") if line.strip()]
