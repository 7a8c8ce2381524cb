"""Made-up scenes with faces that move, all of one public-domain photo: NASA's astronaut, as scikit-image has it."""

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import skimage.data

WIDTH_PX, HEIGHT_PX = 640, 480
PERIOD_S = 4.0
"""After so long the film begins anew without a jump."""
HEAD = (slice(0, 250), slice(110, 340))
"""Rows and columns of the head in the photo of 512 x 512."""


def scene(second: float, *, faces: int = 4) -> np.ndarray:
    """One moment: RGB uint8, shape (480, 640, 3); each face sways on a place of its own."""
    picture = _backdrop().copy()
    columns = math.ceil(math.sqrt(faces))
    rows = math.ceil(faces / columns)
    for index in range(faces):
        row, column = divmod(index, columns)
        cell_w, cell_h = WIDTH_PX / columns, HEIGHT_PX / rows
        phase = second * 2 * math.pi / PERIOD_S + index * 1.9
        side_px = round(min(cell_w, cell_h) * (0.72 + 0.05 * math.sin(phase)))
        x = (column + 0.5) * cell_w + 0.11 * cell_w * math.sin(phase) - side_px / 2
        y = (row + 0.5) * cell_h + 0.08 * cell_h * math.cos(phase) - side_px / 2
        _paste(picture, _head(flipped=index % 2 == 1, light=1 - 0.12 * (index % 3)), round(x), round(y), side_px)
    return picture


def with_a_blurred_face(picture: np.ndarray) -> np.ndarray:
    """The same with its lower left quarter out of focus and dark."""
    blurred = picture.copy()
    quarter = blurred[HEIGHT_PX // 2 :, : WIDTH_PX // 2]
    quarter[:] = (cv2.GaussianBlur(quarter, (0, 0), 2.6) * 0.55).astype(np.uint8)
    return blurred


def jpeg(picture: np.ndarray, quality: int = 90) -> bytes:
    done, encoded = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return encoded.tobytes()


def write_film(path: Path, *, faces: int = 4, seconds: float = PERIOD_S, per_s: int = 30) -> Path:
    """Write JPEGs one after another, as Chromium's fake camera plays them, over and over."""
    with path.open("wb") as file:
        for picture in film(faces=faces, seconds=seconds, per_s=per_s):
            file.write(jpeg(picture))
    return path


def write_raw_film(path: Path, *, faces: int = 4, seconds: float = PERIOD_S, per_s: int = 30) -> Path:
    """Write the pixels themselves (YUV4MPEG2): the camera then costs next to nothing, as one with hardware does."""
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH_PX} H{HEIGHT_PX} F{per_s}:1 Ip A1:1 C420mpeg2\n".encode())
        for picture in film(faces=faces, seconds=seconds, per_s=per_s):
            file.write(b"FRAME\n" + cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420).tobytes())
    return path


def film(*, faces: int, seconds: float, per_s: int) -> Iterator[np.ndarray]:
    for number in range(round(seconds * per_s)):
        yield scene(number / per_s, faces=faces)


@cache
def _backdrop() -> np.ndarray:
    down, across = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX]
    shade = 150 + 50 * down / HEIGHT_PX + 12 * np.sin(across / 90)
    return np.stack([shade * 0.92, shade * 0.97, shade], axis=2).clip(0, 255).astype(np.uint8)


@cache
def _head(*, flipped: bool, light: float) -> np.ndarray:
    head = skimage.data.astronaut()[HEAD]
    head = head[:, ::-1] if flipped else head
    return (head * light).astype(np.uint8)


def _paste(picture: np.ndarray, head: np.ndarray, x: int, y: int, side_px: int) -> None:
    """Lay a head over the picture, its edges fading out."""
    head = cv2.resize(head, (side_px, side_px), interpolation=cv2.INTER_AREA)
    opaque = _oval(side_px)
    x, y = np.clip(x, 0, WIDTH_PX - side_px), np.clip(y, 0, HEIGHT_PX - side_px)
    place = picture[y : y + side_px, x : x + side_px]
    place[:] = (opaque * head + (1 - opaque) * place).astype(np.uint8)


@cache
def _oval(side_px: int) -> np.ndarray:
    """How much of a head covers what is behind it, shape (S, S, 1)."""
    down, across = np.mgrid[0:side_px, 0:side_px] / side_px - 0.5
    return np.clip((0.5 - np.hypot(across * 1.05, down)) * 9, 0, 1)[:, :, None]
