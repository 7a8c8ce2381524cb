"""What decoding a picture takes at its peak, known from its head before a pixel is allocated.

A decoder that gives a picture at a reduced scale still holds all of it in some form: Pillow keeps one, two or four
bytes a pixel, libjpeg the coefficients of a JPEG whose pixels come in several scans, libwebp two canvases and a frame.
The figures are measured; a test decodes each kind in a process of its own and compares (docs/adr/0012-memory.md).
"""

from math import ceil
from typing import Final

RGB_BYTES: Final = 3
WORKING_BYTES: Final = 2 * 2**20
"""For what does not grow with the picture: zlib's window, tables, rows."""
_STRIP_COPIES_BYTES: Final = 16
"""A pixel of a strip on its way to RGB: cut out, laid over white, converted, copied."""
_STRIP_PIXELS: Final = 2**17

_WEBP_BYTES: Final = 16
"""A pixel of a WebP, as measured with Pillow 13: two canvases, the frame, and Pillow's own copy."""
_MODE_BYTES: Final = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
"""A pixel as Pillow holds it; all other modes take four."""
_RUN_LENGTHS_BYTES: Final = 3
"""A pixel of a BMP with a palette, once more, as long as its run lengths are unpacked."""
_COEFFICIENT_BYTES: Final = 2
_SAMPLES: Final = {"Gray": 1.0, "420": 1.5, "411": 1.5, "422": 2.0, "440": 2.0}
"""Samples for each pixel of a JPEG; of other subsamplings three at most."""
_JPEG_SCALES: Final = (1, 2, 3, 4)
"""Eighths that a JPEG may be reduced to; between half and full size the decoder is slower than at full."""


class MemoryNeededError(Exception):
    """Decoding would take more than was granted; nothing was allocated for it. Never shown to a caller.

    Attributes:
        needed_bytes: what to grant for the next try.
    """

    def __init__(self, needed_bytes: int) -> None:
        super().__init__(f"decoding takes {needed_bytes} bytes")
        self.needed_bytes = needed_bytes


def check_granted(needed_bytes: int, granted_bytes: int | None) -> None:
    """Raise MemoryNeededError if decoding needs more than was granted; None grants all."""
    if granted_bytes is not None and needed_bytes > granted_bytes:
        raise MemoryNeededError(needed_bytes)


def pillow_factor(size: tuple[int, int], min_side_px: int | None) -> int:
    """By which whole number Pillow's pixels are reduced, so that the longer side keeps `min_side_px`; at least 1."""
    return 1 if min_side_px is None else max(max(size) // max(min_side_px, 1), 1)


def strip_rows(size: tuple[int, int], factor: int) -> int:
    """How many rows are brought to RGB at a time, a multiple of `factor`."""
    return max(_STRIP_PIXELS // size[0] // factor, 1) * factor


def webp_bytes(size: tuple[int, int]) -> int:
    """What a WebP takes from the moment it is opened; its result is made after the last of it is there."""
    return size[0] * size[1] * _WEBP_BYTES + WORKING_BYTES


def pillow_bytes(
    kind: str, mode: str, size: tuple[int, int], *, factor: int, is_turned: bool, coefficients: int = 0
) -> int:
    """What a picture takes that Pillow decodes and that is brought to RGB strip by strip.

    Args:
        kind: the format.
        mode: Pillow's.
        size: width and height in pixels.
        factor: of the reduction.
        is_turned: by its EXIF block, once it is RGB.
        coefficients: for each pixel, that a JPEG of several scans holds.
    """
    width, height = size
    held_bytes = _MODE_BYTES.get(mode, 4)
    decoding = held_bytes + coefficients * _COEFFICIENT_BYTES
    if kind == "TIFF":
        decoding += held_bytes  # its one strip, or the same pixels turned upright
    elif kind == "BMP" and held_bytes == 1:
        decoding += _RUN_LENGTHS_BYTES
    out = RGB_BYTES * ceil(width / factor) * ceil(height / factor)
    strip = width * min(strip_rows(size, factor), height) * _STRIP_COPIES_BYTES
    # The result is turned upright once Pillow's pixels are gone.
    turning = 2 * out if is_turned else 0
    return max(width * height * decoding, width * height * held_bytes + out + strip, turning) + WORKING_BYTES


def jpeg_bytes(
    size: tuple[int, int], min_side_px: int | None, *, subsampling: str, in_one_scan: bool, is_turned: bool
) -> int:
    """What a JPEG takes that libjpeg-turbo decodes straight to RGB, perhaps at a reduced scale."""
    width, height = size
    samples = 0.0 if in_one_scan else _SAMPLES.get(subsampling, 3.0)
    eighths = _jpeg_eighths(size, min_side_px)
    out = RGB_BYTES * ceil(width * eighths / 8) * ceil(height * eighths / 8)
    coefficients = ceil(width * height * samples * _COEFFICIENT_BYTES)
    return max(coefficients + out, 2 * out if is_turned else 0) + WORKING_BYTES


def _jpeg_eighths(size: tuple[int, int], min_side_px: int | None) -> int:
    if min_side_px is None:
        return 8
    longer = max(size)
    least = [min_side_px * side // longer for side in size]
    for eighths in _JPEG_SCALES:
        if all(ceil(side * eighths / 8) >= enough for side, enough in zip(size, least, strict=True)):
            return eighths
    return 8
