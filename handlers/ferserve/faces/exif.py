"""Which way up a picture is: the one EXIF tag that changes pixels, read here and not by Pillow.

Pillow reads every tag and warns of the odd ones; phones and editors write many odd ones.
"""

import struct
from dataclasses import dataclass
from typing import Final

UPRIGHT: Final = 1
"""The orientation that turns nothing."""
ORIENTATIONS: Final = range(1, 9)
MAX_SEGMENTS: Final = 1000
"""A JPEG of 20 MiB holds some 300 segments of full size before its pixels."""

_PREFIX: Final = b"Exif\x00\x00"
_TAG, _SHORT = 0x0112, 3
_SOI, _SOS, _EOI, _APP1 = 0xD8, 0xDA, 0xD9, 0xE1
_PROGRESSIVE: Final = (0xC2, 0xC6, 0xCA, 0xCE)
_FRAMES: Final = (0xC0, 0xC1, 0xC9, *_PROGRESSIVE)
"""Segments that announce how many components there are; lossless and hierarchical ones no decoder here reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegHead:
    """What stands before a JPEG's first scan.

    Attributes:
        exif: the EXIF block, empty if there is none.
        progressive: its pixels come in scans that refine each other.
        in_one_scan: all of its pixels come in one scan, which decoders need not hold; False where that is not seen.
    """

    exif: bytes = b""
    progressive: bool = False
    in_one_scan: bool = False


def read_jpeg_head(data: bytes) -> JpegHead:
    """Walk a JPEG's segments up to its pixels; what is damaged ends the walk and fails nothing."""
    exif, progressive, in_one_scan = b"", False, False
    components = b"?"
    at = 2
    for _ in range(MAX_SEGMENTS):
        at = data.find(b"\xff", at)  # decoders skip what stands between segments
        if at < 0 or at + 4 > len(data) or data[at + 1] == _EOI:
            break
        if data[at + 1] == _SOS:
            in_one_scan = not progressive and components == data[at + 4 : at + 5]
            break
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in (0x00, 0xFF, _SOI):
            at += 1
            continue
        progressive = progressive or marker in _PROGRESSIVE
        if marker in _FRAMES:
            components = data[at + 9 : at + 10]
        if marker == _APP1 and not exif and data.startswith(_PREFIX, at + 4):
            exif = data[at + 4 : at + 2 + length]
        at += 2 + length
    return JpegHead(exif=exif, progressive=progressive, in_one_scan=in_one_scan)


def orientation(exif: bytes) -> int:
    """The EXIF orientation.

    Returns:
        1 to 8; 1 too for an absent, damaged or meaningless one.
    Source: CIPA DC-008 (Exif 2.32), section 4.6.4.
    """
    tiff = exif.removeprefix(_PREFIX)
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return UPRIGHT
    try:
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, first)
        for entry in range(count):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, first + 2 + 12 * entry)
            if tag == _TAG:
                return value if kind == _SHORT and value in ORIENTATIONS else UPRIGHT
    except struct.error:
        return UPRIGHT
    return UPRIGHT
