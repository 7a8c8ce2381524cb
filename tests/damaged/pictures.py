"""Whole pictures to damage: one real face, in every format that is read."""

import io
from collections.abc import Callable
from functools import cache, partial
from random import Random

import numpy as np
import skimage.data
from PIL import Image

# Where the face is in scikit-image's astronaut, with room around it.
_FACE_PX = (slice(0, 240), slice(104, 344))


@cache
def face(size_px: int) -> Image.Image:
    """The face, square and in colour."""
    return Image.fromarray(np.ascontiguousarray(skimage.data.astronaut()[_FACE_PX])).resize((size_px, size_px))


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    """Write a picture in one of Pillow's formats."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


ENCODERS: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg": partial(encode, kind="JPEG"),
    "progressive jpeg": partial(encode, kind="JPEG", progressive=True),
    "png": partial(encode, kind="PNG"),
    "webp": partial(encode, kind="WEBP"),
    "lossless webp": partial(encode, kind="WEBP", lossless=True),
    "bmp": partial(encode, kind="BMP"),
    "tiff": partial(encode, kind="TIFF"),
    "lzw tiff": partial(encode, kind="TIFF", compression="tiff_lzw"),
    "jpeg tiff": partial(encode, kind="TIFF", compression="jpeg"),
    "gif": partial(encode, kind="GIF"),
}
"""By name; the six formats and what is different inside of them."""


@cache
def whole(name: str, size_px: int) -> bytes:
    """The face in one of `ENCODERS`."""
    return ENCODERS[name](face(size_px))


def any_whole(rng: Random) -> tuple[str, bytes]:
    """A name out of `ENCODERS`, and the face in it at one of a few sizes."""
    name = rng.choice(list(ENCODERS))
    return name, whole(name, rng.choice((64, 96, 128, 160)))
