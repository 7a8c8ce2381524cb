"""A copy of a video with the faces that its sampled frames had; boxes stay until the next sampled frame."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import cv2

from ferserve.serving.bulk.disk import UNFINISHED
from ferserve.serving.bulk.report.figures import video_of
from ferserve.serving.bulk.report.page import COLOURS
from ferserve.serving.bulk.rows import PictureStatus, Row
from ferserve.serving.bulk.sources import shown
from ferserve.serving.errors import ConfigError

USUAL_FRAMES_PER_S: Final = 25.0
_HALF_A_TICK_S: Final = 0.0005
_FONT_SCALE, _TEXT_GAP_PX = 0.5, 4


def frames_of(pieces: Iterable[list[Row]], video: str) -> dict[float, list[Row]]:
    """The faces of each scored frame of one video, by its time."""
    frames: dict[float, list[Row]] = defaultdict(list)
    for rows in pieces:
        for row in rows:
            if row["path"] is not None and row["time_s"] is not None and video_of(row) == shown(video):
                frames[row["time_s"]] += [row] if row["status"] == PictureStatus.OK else []
    return dict(frames)


def write_annotated(video: str, frames: dict[float, list[Row]], out: Path) -> int:
    """Write the copy as MP4, without sound; how many frames it has.

    Args:
        frames: as `frames_of` gives them.
    Raises:
        ConfigError: the table has no frame of the video, or it cannot be read or written.
    """
    if not frames:
        raise ConfigError(f"{video}: expected a video that the table has frames of, found none")
    capture: Any = cv2.VideoCapture(video)
    if not capture.isOpened():
        raise ConfigError(f"{video}: expected a video that OpenCV reads")
    size = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    rate = capture.get(cv2.CAP_PROP_FPS) or USUAL_FRAMES_PER_S
    unfinished = out.with_name(f".{out.stem}{UNFINISHED}.mp4")
    writer = cv2.VideoWriter(str(unfinished), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    try:
        if not writer.isOpened():
            raise ConfigError(f"{out}: expected a place that a video can be written to")
        number = _copy(capture, writer, frames, rate)
    finally:
        capture.release()
        writer.release()
    unfinished.replace(out)
    return number


def _copy(capture: Any, writer: cv2.VideoWriter, frames: dict[float, list[Row]], rate: float) -> int:
    times = sorted(frames)
    number, time_s = 0, -1.0
    while True:
        done, image = capture.read()
        if not done:
            return number
        told_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        time_s = told_s if told_s > time_s else time_s + 1 / rate
        place = bisect_right(times, time_s + _HALF_A_TICK_S) - 1
        for row in frames[times[place]] if place >= 0 else ():
            _draw(image, row)
        writer.write(image)
        number += 1


def _draw(image: Any, row: Row) -> None:
    x0, y0, x1, y1 = (round(row[f"box_{edge}"]) for edge in ("x0", "y0", "x1", "y1"))
    label = row["expression"]
    red, green, blue = bytes.fromhex(COLOURS[label].removeprefix("#"))
    colour = (blue, green, red)
    cv2.rectangle(image, (x0, y0), (x1, y1), colour, 1 if row["uncertain"] else 2)
    text = f"{label} {row[label]:.0%}{' ?' if row['uncertain'] else ''}"
    place = (x0, max(y0 - _TEXT_GAP_PX, 10))
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, _FONT_SCALE, colour, 1, cv2.LINE_AA)
