"""The requests that are offered, made from the user's own picture."""

import math
from dataclasses import replace
from typing import Final

import cv2
import numpy as np
import simplejpeg

from ferserve.faces.align import resize
from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.detectors import Detector, default_detector
from ferserve.faces.errors import InvalidRequestError
from ferserve.faces.types import Box, Image
from ferserve.serving.benchmarks.transports import Work
from ferserve.serving.convert import options_to_pb
from ferserve.serving.requests import AnalyzeOptions
from ferserve.v1 import expression_service_pb2 as pb

CROWD_NAME: Final = "crowd"
CROWD_FACES: Final = 200
CROWD_TIMEOUT_S: Final = 10.0
LEAST_FOUND: Final = 0.9
"""Of a crowd's faces: what is measured with fewer is no crowd."""
TILE_SCALE: Final = 1.2
"""A tile's side over its face's: a detector wants to see where a face ends."""
CROP_PX: Final = 112
JPEG_QUALITY: Final = 90


class Payloads:
    """What is offered, made from one picture.

    Args:
        data: the picture, encoded.
        crops: of its surest face in one request; None for whole pictures.
        side_px: the picture's longer side is brought down to it first; None leaves it.
        crowd_side_px: longer side of a crowd's picture, and of its detection.
        timeout_s: of each request; crowds have `CROWD_TIMEOUT_S`.
    """

    def __init__(
        self, data: bytes, *, crops: int | None, side_px: int | None, crowd_side_px: int, timeout_s: float
    ) -> None:
        self._data = data if side_px is None else shrunk(data, side_px)
        self._crops = crops
        self._crowd_side_px = crowd_side_px
        self._timeout_s = timeout_s

    def work(self) -> Work:
        """What a gateway has to do again and again.

        Raises:
            InvalidRequestError: crops are wanted and no face is found.
        """
        if self._crops is None:
            return photo_work("photo", self._data, AnalyzeOptions(), self._timeout_s)
        return _crops(one_face(*best_face(self._data, default_detector())), self._crops, self._timeout_s)

    def selfie(self) -> Work:
        """One face.

        Raises:
            InvalidRequestError: none is found.
        """
        pixels, box = best_face(self._data, default_detector())
        if self._crops is None:
            return photo_work("photo", self._data, AnalyzeOptions(), self._timeout_s)
        return _crops(one_face(pixels, box), 1, self._timeout_s)

    def crowd(self, faces: int = CROWD_FACES) -> Work:
        """About so many faces: for whole pictures as many as the detector finds.

        Raises:
            InvalidRequestError: no face is found, or too few of the crowd's.
        """
        pixels, box = best_face(self._data, default_detector())
        if self._crops is not None:
            return _crops(one_face(pixels, box), faces, CROWD_TIMEOUT_S)
        data = crowd_picture(pixels, box, faces, side_px=self._crowd_side_px)
        found = len(default_detector().detect(decode(data, DecodeLimits()).pixels, size_px=self._crowd_side_px))
        if found < LEAST_FOUND * faces:
            raise InvalidRequestError(
                f"picture: expected a face that is found {faces} times in a crowd of {faces}, got {found}"
            )
        options = AnalyzeOptions(detection_size_px=self._crowd_side_px)
        return replace(photo_work(CROWD_NAME, data, options, CROWD_TIMEOUT_S), faces=found)


def photo_work(name: str, data: bytes, options: AnalyzeOptions, timeout_s: float) -> Work:
    """A whole picture."""
    request = pb.AnalyzeRequest(image=data, options=options_to_pb(options))
    return Work(name=name, method="Analyze", body=request.SerializeToString(), timeout_s=timeout_s)


def _crops(data: bytes, count: int, timeout_s: float) -> Work:
    request = pb.ClassifyFacesRequest(faces=[data] * count, options=options_to_pb(AnalyzeOptions()))
    body = request.SerializeToString()
    return Work(name="crops", method="ClassifyFaces", body=body, timeout_s=timeout_s, faces=count)


def shrunk(data: bytes, side_px: int) -> bytes:
    """The picture as a JPEG whose longer side is at most `side_px`.

    Raises:
        RequestError: the bytes are no picture that can be read.
    """
    pixels = decode(data, DecodeLimits()).pixels
    height_px, width_px = pixels.shape[:2]
    scale = min(1.0, side_px / max(height_px, width_px))
    return _jpeg(resize(pixels, (max(1, round(width_px * scale)), max(1, round(height_px * scale)))))


def best_face(data: bytes, detector: Detector) -> tuple[Image, Box]:
    """The picture and the box of the face that the detector is surest of.

    Raises:
        InvalidRequestError: it finds none.
    """
    pixels = decode(data, DecodeLimits()).pixels
    found = detector.detect(pixels)
    if not found:
        raise InvalidRequestError("picture: expected one with a face that the detector finds, got one without")
    return pixels, found[0].box


def face_picture(pixels: Image, box: Box, *, side_px: int, scale: float) -> Image:
    """The square around a face, brought to `side_px`; beyond the picture's edge its last pixels go on."""
    side = max(box.width_px, box.height_px) * scale
    factor = side_px / side
    x0, y0 = (box.x0 + box.x1 - side) / 2, (box.y0 + box.y1 - side) / 2
    to_square = np.array([[factor, 0, -x0 * factor], [0, factor, -y0 * factor]])
    warped = cv2.warpAffine(
        pixels, to_square, (side_px, side_px), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, dtype=np.uint8)


def crowd_picture(pixels: Image, box: Box, faces: int, *, side_px: int) -> bytes:
    """A JPEG with the same face many times, about twice as wide as it is high and at most `side_px` wide."""
    columns = math.ceil(math.sqrt(2 * faces))
    rows, tile_px = -(-faces // columns), side_px // columns
    tile = face_picture(pixels, box, side_px=tile_px, scale=TILE_SCALE)
    canvas = np.full((rows * tile_px, columns * tile_px, 3), 128, dtype=np.uint8)
    for index in range(faces):
        y0, x0 = (tile_px * place for place in divmod(index, columns))
        canvas[y0 : y0 + tile_px, x0 : x0 + tile_px] = tile
    return _jpeg(canvas)


def one_face(pixels: Image, box: Box) -> bytes:
    """A JPEG of the face alone, as ready-made crops come."""
    return _jpeg(face_picture(pixels, box, side_px=CROP_PX, scale=1.0))


def _jpeg(pixels: Image) -> bytes:
    encoded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=JPEG_QUALITY)
    return encoded
