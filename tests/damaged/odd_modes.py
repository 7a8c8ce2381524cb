"""Pictures that are whole and odd: colours that screens do not have, depths, palettes, byte orders."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from random import Random

import numpy as np
from PIL import Image
from tests.damaged.chunks import grey_tiff, png, png_chunk
from tests.damaged.expected import Decodes, Expected
from tests.damaged.inputs import Damaged, Picture
from tests.damaged.pictures import encode, face

_ALWAYS = Expected(decodes=Decodes.ALWAYS)
_UNSUPPORTED = Expected(reasons=frozenset({"UNSUPPORTED_MEDIA"}))
_BROKEN = Expected(reasons=frozenset({"INVALID_IMAGE"}))
_PERHAPS = Expected(reasons=frozenset({"INVALID_IMAGE", "UNSUPPORTED_MEDIA"}), decodes=Decodes.PERHAPS)


def odd_mode(rng: Random, index: int) -> Damaged:
    """One of them."""
    what = list(_FORMS)[index % len(_FORMS)]
    make, expected = _FORMS[what]
    size_px = rng.choice((24, 64, 96))
    return Damaged(
        kind="odd mode",
        index=index,
        what=what,
        make=lambda: Picture(data=make(face(size_px))),
        expected=expected,
    )


def _as(mode: str, kind: str, **options: object) -> Callable[[Image.Image], bytes]:
    return lambda picture: encode(picture.convert("L" if ";" in mode else mode).convert(mode), kind, **options)


def _deep_png(picture: Image.Image, *, colours: int) -> bytes:
    """16 bits a channel; each row begins with a filter byte."""
    pixels = np.asarray(picture.convert("RGB" if colours == 2 else "L"), dtype=">u2") * 257
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in pixels)
    return png(*picture.size, zlib.compress(rows), depth=16, colours=colours)


def _palette_png(picture: Image.Image, *, colours: int) -> bytes:
    """Every pixel is entry 200 of a palette that may be shorter."""
    rows = (b"\x00" + b"\xc8" * picture.width) * picture.height
    palette = png_chunk(b"PLTE", bytes(3 * colours)) if colours else b""
    return png(*picture.size, zlib.compress(rows), colours=3, extra=palette)


def _adobe(picture: Image.Image, *, transform: int) -> bytes:
    """A JPEG that says of its own colours something else than is true."""
    data = bytearray(encode(picture.convert("CMYK"), "JPEG"))
    marker = data.index(b"Adobe")
    data[marker + 11] = transform
    return bytes(data)


def _top_down_bmp(picture: Image.Image) -> bytes:
    data = bytearray(encode(picture, "BMP"))
    data[22:26] = struct.pack("<i", -picture.height)
    return bytes(data)


def _short_bmp(picture: Image.Image) -> bytes:
    """Sixteen bits a pixel, five for each colour."""
    head = struct.pack("<IiiHHIIiiII", 40, *picture.size, 1, 16, 0, 0, 0, 0, 0, 0)
    pixels = b"\xff\x7f" * (picture.width + picture.width % 2) * picture.height
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + head + pixels


def _big_tiff(picture: Image.Image) -> bytes:
    return encode(picture, "TIFF", big_tiff=True)


def _float_tiff(picture: Image.Image, *, mode: str) -> bytes:
    return encode(picture.convert("L").convert(mode), "TIFF")


def _lab_tiff(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    Image.new("LAB", picture.size).save(buffer, "TIFF")
    return buffer.getvalue()


_FORMS: dict[str, tuple[Callable[[Image.Image], bytes], Expected]] = {
    "cmyk jpeg": (_as("CMYK", "JPEG"), _ALWAYS),
    "ycck jpeg": (partial(_adobe, transform=2), _PERHAPS),
    "cmyk jpeg of an unknown transform": (partial(_adobe, transform=77), _PERHAPS),
    "grey jpeg": (_as("L", "JPEG"), _ALWAYS),
    "jpeg of subsampled colours": (_as("RGB", "JPEG", subsampling=2), _ALWAYS),
    "jpeg of quality 1": (_as("RGB", "JPEG", quality=1), _ALWAYS),
    "jpeg with restarts": (_as("RGB", "JPEG", restart_marker_blocks=1), _ALWAYS),
    "one-bit png": (_as("1", "PNG"), _ALWAYS),
    "grey png with transparency": (_as("LA", "PNG"), _ALWAYS),
    "palette png": (_as("P", "PNG"), _ALWAYS),
    "palette png with transparency": (_as("P", "PNG", transparency=0), _ALWAYS),
    "png of 16 bits": (partial(_deep_png, colours=0), _ALWAYS),
    "colour png of 16 bits": (partial(_deep_png, colours=2), _ALWAYS),
    "palette png whose palette is short": (partial(_palette_png, colours=2), _PERHAPS),
    "palette png without a palette": (partial(_palette_png, colours=0), _BROKEN),
    "cmyk tiff": (_as("CMYK", "TIFF"), _ALWAYS),
    "tiff of 16 bits": (_as("I;16", "TIFF"), _ALWAYS),
    "tiff of 32 bits": (partial(_float_tiff, mode="I"), _UNSUPPORTED),
    "tiff of floats": (partial(_float_tiff, mode="F"), _UNSUPPORTED),
    "lab tiff": (_lab_tiff, _UNSUPPORTED),
    "ycbcr tiff": (_as("YCbCr", "TIFF"), _ALWAYS),
    "big tiff": (_big_tiff, _ALWAYS),
    "fax tiff": (_as("1", "TIFF", compression="group4"), _ALWAYS),
    "tiff of an unknown compression": (
        lambda picture: grey_tiff(*picture.size, bytes(picture.width * picture.height), compression=12_345),
        _BROKEN,
    ),
    "tiff of 7 bits": (
        lambda picture: grey_tiff(*picture.size, bytes(picture.width * picture.height), bits=7),
        _PERHAPS,
    ),
    "top-down bmp": (_top_down_bmp, _ALWAYS),
    "bmp of 16 bits": (_short_bmp, _ALWAYS),
    "one-bit bmp": (_as("1", "BMP"), _ALWAYS),
    "palette bmp": (_as("P", "BMP"), _ALWAYS),
    "bmp with transparency": (_as("RGBA", "BMP"), _ALWAYS),
    "transparent webp": (_as("RGBA", "WEBP"), _ALWAYS),
    "one-bit gif": (_as("1", "GIF"), _ALWAYS),
    "gif with transparency": (_as("P", "GIF", transparency=0), _ALWAYS),
}
