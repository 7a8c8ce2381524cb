"""Frames of a video at a steady rate, as OpenCV decodes it, upright.

A frame travels as a picture without loss, so that it goes the same way as any other one, over the wire too.
"""

import math
from collections.abc import Iterator
from typing import Any, Final, Self

import cv2

from ferserve.faces.types import Image
from ferserve.serving.bulk.sources.errors import SourceCode, SourceError
from ferserve.serving.bulk.sources.items import Item, broken, identity_of, shown

SUFFIXES: Final = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv")
MISSING_SHARE: Final = 0.05
"""Share of the announced frames that may be missing: some containers only estimate how many there are."""
_HALF_A_TICK_S: Final = 0.0005
"""Containers round times to milliseconds."""
_USUAL_FRAMES_PER_S: Final = 25.0


def is_video(path: str) -> bool:
    """Whether a path names a video."""
    return path.lower().endswith(SUFFIXES)


def frames(path: str, frames_per_s: float) -> Iterator[Item]:
    """The first frame at or after each tick of the rate; an item that fails where the video ends too early."""
    with _Video(path) as video:
        if not video.is_open:
            yield broken(path, SourceError(SourceCode.UNREADABLE, "expected a video that OpenCV reads"), place="video")
            return
        tick = number = 0
        while video.advance():
            number += 1
            if video.time_s >= tick / frames_per_s - _HALF_A_TICK_S:
                yield _frame(path, video, tick, frames_per_s)
                tick = math.floor((video.time_s + _HALF_A_TICK_S) * frames_per_s) + 1
        if number < video.announced * (1 - MISSING_SHARE):
            message = f"expected a video of {video.announced} frames, got {number} that can be read"
            yield broken(path, SourceError(SourceCode.UNREADABLE, message), place="video")


def counted(path: str, frames_per_s: float) -> int | None:
    """About how many frames come; None where the container does not tell."""
    with _Video(path) as video:
        if not video.is_open:
            return 1
        if not video.announced or not video.frame_rate:
            return None
        return math.ceil(min(video.announced / video.frame_rate * frames_per_s, video.announced))


def _frame(path: str, video: "_Video", tick: int, frames_per_s: float) -> Item:
    time_s = round(video.time_s, 3)

    def read(limit_bytes: int) -> bytes:
        return _encoded(video.frame(), limit_bytes)

    return Item(
        # By its tick and the rate: what a container says of times may differ in the last digit.
        identity=identity_of(path, f"{tick}@{frames_per_s:g}"),
        path=f"{shown(path)}#t={time_s:.3f}",
        size_bytes=video.frame_bytes,
        read=read,
        is_sequential=True,
        time_s=time_s,
    )


def _encoded(image: Image, limit_bytes: int) -> bytes:
    """BMP, which costs next to nothing; PNG where it would be too long."""
    done, encoded = cv2.imencode(".bmp", image)
    if done and len(encoded) >= limit_bytes:
        done, encoded = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise SourceError(SourceCode.UNREADABLE, "expected a frame that can be encoded as a picture")
    return encoded.tobytes()


class _Video:
    """OpenCV's reader, with names.

    Attributes:
        announced: frames, as the container says; 0 where it does not.
        frame_rate: frames a second, as the container says; 0 where it does not.
        time_s: of the present frame, from the video's beginning.
    """

    def __init__(self, path: str) -> None:
        self._capture: Any = cv2.VideoCapture(path)
        self.time_s = -1.0
        self.is_open = bool(self._capture.isOpened())
        self.announced = max(int(self._property(cv2.CAP_PROP_FRAME_COUNT)), 0)
        self.frame_rate = self._property(cv2.CAP_PROP_FPS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._capture.release()

    @property
    def frame_bytes(self) -> int:
        """About what a frame takes as BMP."""
        return int(self._property(cv2.CAP_PROP_FRAME_WIDTH) * self._property(cv2.CAP_PROP_FRAME_HEIGHT)) * 3

    def advance(self) -> bool:
        """Go to the next frame, which is not converted to pixels yet; False at the end."""
        if not self._capture.grab():
            return False
        time_s = self._property(cv2.CAP_PROP_POS_MSEC) / 1000
        is_told = time_s > self.time_s  # some containers carry no times
        self.time_s = time_s if is_told else self.time_s + 1 / (self.frame_rate or _USUAL_FRAMES_PER_S)
        return True

    def frame(self) -> Image:
        """The present frame's pixels in OpenCV's order, BGR."""
        done, image = self._capture.retrieve()
        if not done:
            raise SourceError(SourceCode.UNREADABLE, "expected a whole frame, got a damaged one")
        return image  # type: ignore[no-any-return]  # OpenCV's own types know only Any here

    def _property(self, name: int) -> float:
        value = float(self._capture.get(name)) if self.is_open else 0.0
        return value if math.isfinite(value) else 0.0
