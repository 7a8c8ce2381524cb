"""The real-time table of Miao et al. 2019 made again: milliseconds a frame of 640 x 480 for so many faces, by stage.

The paper measured 46.93 ms to detect, 7.49 ms to preprocess a face and 3.57 ms to classify one (beside Table 6, on a
workstation with a Quadro K4200), so a frame with M faces takes 46.93 + M * 11.06 ms. Here everything runs on one thread
of a CPU, as one frame after another: what a gateway does side by side on its cores is not counted.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
import simplejpeg

from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.detectors import Detector, load_detector
from ferserve.faces.errors import InvalidRequestError
from ferserve.faces.precision import Precision
from ferserve.faces.preprocess import PreprocessSpec, face_crop
from ferserve.faces.session import ScoringSession
from ferserve.faces.types import Box, Image
from ferserve.serving.benchmarks.payloads import best_face, face_picture
from ferserve.serving.benchmarks.stages import WARM_UPS, describe_machine
from ferserve.serving.engine import ModelsConfig, open_archives

FRAME_PX: Final = (640, 480)
PAPER_DETECT_MS: Final = 46.93
PAPER_FACE_MS: Final = 11.06
"""To preprocess and classify one face."""
TILE_FILLS: Final = 0.86
"""Of its cell's shorter side; the rest keeps neighbours apart."""
TILE_SCALE: Final = 1.9
"""A tile's side over its face's: a head with air around it, as a camera sees one."""
GREY: Final = 128
JPEG_QUALITY: Final = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median and quartiles in milliseconds."""

    median_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameCost:
    """What one frame takes.

    Attributes:
        faces: in the frame.
        found: of them, by the detector; so many are cut and classified.
        decode: reading the JPEG; not part of the paper's figures, nor of `total`.
        total: detect, preprocess and classify of one frame after another.
        paper_ms: the paper's formula for `faces`.
    """

    faces: int
    found: int
    decode: Spread
    detect: Spread
    preprocess: Spread
    classify: Spread
    total: Spread
    paper_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RealtimeReport:
    """The table, and what it was measured on; the ledger reads it where `kind` says so."""

    kind: Literal["realtime"] = "realtime"
    machine: dict[str, str | int | float]
    model: str
    precision: Precision
    detector: str
    repeats: int
    frames: tuple[FrameCost, ...]


def paper_ms(faces: int) -> float:
    """What the paper's system takes for a frame."""
    return PAPER_DETECT_MS + faces * PAPER_FACE_MS


def measure_realtime(models: ModelsConfig, picture: bytes, *, faces: Sequence[int], repeats: int) -> RealtimeReport:
    """Time frames with so many copies of the picture's surest face.

    Args:
        models: the first archive is measured.
        faces: how many in a frame, one row each.
        repeats: timed runs a row, after `WARM_UPS` untimed ones.
    Raises:
        ArchiveError: the archive cannot be used, or not in the precision asked for.
        RequestError: the picture cannot be read, or no face is found in it.
    """
    machine = describe_machine()
    archive, detector = open_archives(models)[0], load_detector(models.detector)
    session = ScoringSession.from_archive(archive, precision=models.precision)
    pixels, box = best_face(picture, detector)
    threads_before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        frames = tuple(
            _cost(frame_with(pixels, box, count), count, detector, session, archive.manifest.preprocess, repeats)
            for count in faces
        )
    finally:
        cv2.setNumThreads(threads_before)
    return RealtimeReport(
        machine=machine,
        model=f"{archive.manifest.name} {archive.manifest.version}",
        precision=session.precision,
        detector=detector.name,
        repeats=repeats,
        frames=frames,
    )


def frame_with(pixels: Image, box: Box, faces: int) -> bytes:
    """A JPEG of 640 x 480 with one face so many times, in rows, on grey."""
    width_px, height_px = FRAME_PX
    columns = math.ceil(math.sqrt(faces))
    rows = -(-faces // columns)
    tile_px = int(min(width_px / columns, height_px / rows) * TILE_FILLS)
    tile = face_picture(pixels, box, side_px=tile_px, scale=TILE_SCALE)
    canvas = np.full((height_px, width_px, 3), GREY, dtype=np.uint8)
    for index in range(faces):
        row, column = divmod(index, columns)
        x0 = round((column + 0.5) * width_px / columns - tile_px / 2)
        y0 = round((row + 0.5) * height_px / rows - tile_px / 2)
        canvas[y0 : y0 + tile_px, x0 : x0 + tile_px] = tile
    encoded: bytes = simplejpeg.encode_jpeg(canvas, quality=JPEG_QUALITY)
    return encoded


def _cost(
    data: bytes, faces: int, detector: Detector, session: ScoringSession, spec: PreprocessSpec, repeats: int
) -> FrameCost:
    limits = DecodeLimits()
    laps: list[tuple[float, ...]] = []
    found = 0
    for _ in range(WARM_UPS + repeats):
        watch = _Laps(time.perf_counter)
        image = decode(data, limits).pixels
        watch.lap()
        detections = detector.detect(image)
        watch.lap()
        crops = [face_crop(image, detection, spec) for detection in detections]
        watch.lap()
        if crops:
            session.score(np.stack(crops))
        watch.lap()
        laps.append(tuple(watch.laps_ms))
        found = len(detections)
    if found == 0:
        raise InvalidRequestError(f"picture: expected a face that is found in a frame with {faces} of it, found none")
    decode_ms, detect_ms, preprocess_ms, classify_ms = zip(*laps[WARM_UPS:], strict=True)
    total_ms = [sum(lap[1:]) for lap in laps[WARM_UPS:]]
    return FrameCost(
        faces=faces,
        found=found,
        decode=_spread(decode_ms),
        detect=_spread(detect_ms),
        preprocess=_spread(preprocess_ms),
        classify=_spread(classify_ms),
        total=_spread(total_ms),
        paper_ms=paper_ms(faces),
    )


class _Laps:
    """Milliseconds between calls of `lap`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_s = clock()
        self.laps_ms: list[float] = []

    def lap(self) -> None:
        now_s = self._clock()
        self.laps_ms.append((now_s - self._last_s) * 1000)
        self._last_s = now_s


def _spread(values_ms: Sequence[float]) -> Spread:
    low_ms, median_ms, high_ms = statistics.quantiles(values_ms, n=4, method="inclusive")
    return Spread(median_ms=median_ms, low_ms=low_ms, high_ms=high_ms)
