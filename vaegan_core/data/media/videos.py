"""The wanted frames of one video file, upright RGB, in time order, one at a time; damage is skipped and reported."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc
from av.video.stream import VideoStream
from PIL import Image

from vaegan_core.data.media.pictures import check_file, on_black, reason_of

HD_HEIGHT = 720
"""Rows from which a video that does not name its color matrix has that of HD, BT.709, as in players."""
UNSPECIFIED = 2
"""FFmpeg's number for a color matrix that is not named."""
HDR = {ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67}
WIDE = {ColorPrimaries.BT2020, ColorPrimaries.SMPTE431, ColorPrimaries.SMPTE432}
OPAQUE = {"rawvideo"}
"""Codecs whose fourth byte of a pixel means nothing in most files (AVI), where others have its transparency."""
TOLERANCE = 0.002
"""Seconds that a time stamp may be early: containers round them, often to 1/1000 s."""


@dataclass(frozen=True)
class Every:
    """Which frames to take: the key frames, one every `step` seconds, or every `step`-th frame."""

    unit: Literal["key", "seconds", "frames"]
    step: float = 1

    @classmethod
    def parse(cls, text: str) -> Every:
        """Reads "key", a time like "1s" or "0.5s", or a whole number. Raises ValueError for anything else."""
        if text == "key":
            return cls("key")
        match = re.fullmatch(r"(\d+(?:\.\d+)?)s|(\d+)", text)
        if not match or not float(match[1] or match[2]):
            raise ValueError(f"every must be key, a time like 1s or 0.5s, or a whole number from 1, but got {text!r}")
        return cls("seconds", float(match[1])) if match[1] else cls("frames", int(match[2]))


class VideoReader:
    """One pass over a video. `damage` lists the damage met so far, in order.

    Frames that damage may have spoiled are left out: after it, frames are taken from the next key frame on.
    """

    def __init__(self, path: Path, every: Every, *, threads: int = 1) -> None:
        self.path = path
        self.every = every
        self.threads = threads
        self.damage: list[str] = []
        self._next: float | None = None
        self._rotation: int | None = None
        self._turns: list[Image.Transpose] = []

    def frames(self, position: Callable[[int], None]) -> Iterator[tuple[Image.Image, float]]:
        """The wanted frames with the aspect (width / height) of their pixels; `position` gets the bytes read so far.

        Rotation and mirroring in the file's metadata are applied. Raises ValueError, OSError or FFmpegError with the
        reason when no video can be opened.
        """
        check_file(self.path)
        with self._open() as container:
            stream = _video_stream(container)
            context = stream.codec_context
            context.thread_count = self.threads
            context.thread_type = "AUTO" if self.threads > 1 else "NONE"
            if self.every.unit == "key":
                context.skip_frame = "NONKEY"
            for index, frame in enumerate(self._decoded(container, stream, position)):
                if self._wants(frame, index, stream):
                    aspect = float(stream.sample_aspect_ratio or 1) or 1.0
                    image = _rgb(frame, opaque=context.name in OPAQUE)
                    turns = self._turns_of(frame)
                    for turn in turns:
                        image = image.transpose(turn)
                    yield image, 1 / aspect if Image.Transpose.TRANSPOSE in turns else aspect

    def _open(self) -> InputContainer:
        try:
            return av.open(str(self.path), metadata_errors="replace", options={"protocol_whitelist": "file"})
        except av.InvalidDataError:
            raise ValueError("not a video, or cut off before its index") from None

    def _decoded(
        self, container: InputContainer, stream: VideoStream, position: Callable[[int], None]
    ) -> Iterator[VideoFrame]:
        """Every sound frame that the decoder gives, in time order."""
        lost, first, last = False, math.inf, -math.inf
        try:
            for packet in container.demux(stream):
                if packet.pos is not None:
                    position(packet.pos)
                if packet.pts is not None:
                    start = float(packet.pts * packet.time_base)
                    first = min(first, start)
                    last = max(last, start + float((packet.duration or 0) * packet.time_base))
                if lost and not packet.is_keyframe:
                    continue
                frames = self._decode(packet)
                lost = frames is None
                for frame in _drain(stream) if frames is None else frames:
                    if frame.is_corrupt:
                        self.damage.append("spoiled frame")
                    else:
                        yield frame
        except av.FFmpegError as error:
            self.damage.append(reason_of(error))
        length = _seconds(stream)
        if length and last - first < 0.95 * length - 1:
            self.damage.append(f"ends at {max(0.0, last - first):.1f} s of {length:.1f} s")

    def _decode(self, packet: Packet[VideoStream]) -> list[VideoFrame] | None:
        """The frames that the packet completes; None for a damaged packet."""
        if packet.is_corrupt:
            self.damage.append("incomplete data")
            return None
        try:
            return packet.decode()
        except av.FFmpegError as error:
            self.damage.append(reason_of(error))
            return None

    def _turns_of(self, frame: VideoFrame) -> list[Image.Transpose]:
        """How to turn a frame. Reads its side data only when the rotation changes: a frame whose side data were read
        stays in memory until Python's garbage collector runs, hundreds of frames later."""
        if frame.rotation != self._rotation:
            self._rotation = frame.rotation
            side_data: Iterable[Any] = frame.side_data
            self._turns = [t for data in side_data if data.type.name == "DISPLAYMATRIX" for t in _turns(bytes(data))]
        return self._turns

    def _wants(self, frame: VideoFrame, index: int, stream: VideoStream) -> bool:
        if self.every.unit == "key":
            return bool(frame.key_frame)  # some decoders give all frames regardless
        if self.every.unit == "frames":
            return index % int(self.every.step) == 0
        time = index / float(stream.average_rate or 25) if frame.time is None else frame.time
        if self._next is None or time < self._next - 2 * self.every.step:  # the first, or its clock was set back
            self._next = time
        late = time - self._next + TOLERANCE
        if late < 0:
            return False
        self._next += self.every.step * (math.floor(late / self.every.step) + 1)
        return True


def _rgb(frame: VideoFrame, *, opaque: bool) -> Image.Image:
    """The frame's colors as a plain screen shows them, RGB: HDR and wide colors are converted to BT.709, transparency
    becomes black, unless the frame is `opaque`."""
    options: dict[str, Any] = {}
    if frame.colorspace == UNSPECIFIED and min(frame.height, frame.width) >= HD_HEIGHT:
        options["src_colorspace"] = Colorspace.ITU709
    if frame.color_trc in HDR or frame.color_primaries in WIDE:
        options |= {"dst_color_trc": ColorTrc.BT709, "dst_color_primaries": ColorPrimaries.BT709}
    # to_ndarray is ten times as fast as to_image
    if not opaque and (frame.format.has_palette or any(part.is_alpha for part in frame.format.components)):
        return on_black(Image.fromarray(frame.to_ndarray(format="rgba", **options)))
    return Image.fromarray(frame.to_ndarray(format="rgb24", **options))


def _video_stream(container: InputContainer) -> VideoStream:
    """The first video stream that is not a cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise ValueError("holds no video")


def _drain(stream: VideoStream) -> list[VideoFrame]:
    """Frames from before the damage that the decoder still holds; afterwards it accepts packets again."""
    try:
        return stream.codec_context.decode(None)
    except av.FFmpegError:
        return []
    finally:
        stream.codec_context.flush_buffers()


def _seconds(stream: VideoStream) -> float | None:
    """Length of the stream by its header; Matroska states it in a tag."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else None


def _turns(matrix: bytes) -> list[Image.Transpose]:
    """The quarter turns and mirrorings in a display matrix.

    [[a, b, u], [c, d, v], [x, y, w]] takes the point (x, y) to (a x + c y, b x + d y).
    """
    a, b, _, c, d = struct.unpack("=9i", matrix)[:5]
    sideways = abs(b) > abs(a)
    turns = [Image.Transpose.TRANSPOSE] if sideways else []
    if (c if sideways else a) < 0:
        turns.append(Image.Transpose.FLIP_LEFT_RIGHT)
    if (b if sideways else d) < 0:
        turns.append(Image.Transpose.FLIP_TOP_BOTTOM)
    return turns
