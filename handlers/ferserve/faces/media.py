"""What kind of file some bytes are, and how large a picture they announce, before any decoder sees them."""

from typing import Final

from ferserve.faces.errors import InvalidImageError, UnsupportedMediaError

FORMATS_TEXT: Final = "JPEG, PNG, WebP, BMP, TIFF or GIF"
GIF_HEADER_BYTES: Final = 2**20
"""The first frame of a GIF begins within so many bytes; what stands before it is walked through block by block."""

_KINDS: Final = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
}
_OTHERS: Final = {
    b"%PDF": "PDF",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"<!DOCTYPE": "HTML",
    b"<html": "HTML",
    b"\x1aE\xdf\xa3": "Matroska or WebM",
    b"RIFF": "RIFF, but no WebP",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
}
"""Named so that an error can say what came."""
_FTYP_BRANDS: Final = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"avif": "AVIF"}


def media_kind(data: bytes) -> str:
    """Tell the format by the first bytes.

    Returns:
        `JPEG`, `PNG`, `WEBP`, `BMP`, `TIFF` or `GIF`.
    Raises:
        UnsupportedMediaError: anything else; says what it is, if that is known.
    """
    for magic, kind in _KINDS.items():
        if data.startswith(magic):
            return kind
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    raise UnsupportedMediaError(f"expected {FORMATS_TEXT}, got {_other(data)}")


def announced_size(kind: str, data: bytes) -> tuple[int, int] | None:
    """Width and height for the two formats whose decoders take memory as soon as they open a file.

    Returns:
        None for every other format, and for a WebP that no decoder will open.
    Raises:
        InvalidImageError: a GIF without a first frame.
    """
    if kind == "WEBP":
        return _webp_size(data)
    if kind == "GIF":
        return _gif_size(data)
    return None


def _other(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return _FTYP_BRANDS.get(data[8:12], "MP4 or its like")
    start = data[:64].lstrip()
    for magic, name in _OTHERS.items():
        if data.startswith(magic) or start.startswith(magic):
            return name
    return "text" if start.isascii() and start.decode("ascii").isprintable() else "an unknown format"


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Source: RFC 9649, sections 2.5 to 2.7."""
    chunk, body = data[12:16], data[20:30]
    if chunk == b"VP8X":
        return _little(body[4:7]) + 1, _little(body[7:10]) + 1
    if chunk == b"VP8L":
        bits = _little(body[1:5])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        return _little(body[6:8]) & 0x3FFF, _little(body[8:10]) & 0x3FFF
    return None


def _gif_size(data: bytes) -> tuple[int, int]:
    """The screen, or the first frame where that reaches over it. Source: GIF89a specification, sections 17 to 26."""
    head = data[:GIF_HEADER_BYTES]
    try:
        at = 13 + (3 << (head[10] & 7) + 1 if head[10] & 0x80 else 0)
        while head[at] == ord("!"):
            at = _past_blocks(head, at + 2)
        if head[at] != ord(","):
            raise InvalidImageError("expected a GIF with a frame, got none")
        left, top, width, height = (head[at + i] | head[at + i + 1] << 8 for i in (1, 3, 5, 7))
    except IndexError as error:
        raise InvalidImageError("expected a GIF with a frame, got a truncated one") from error
    return max(_little(head[6:8]), left + width), max(_little(head[8:10]), top + height)


def _past_blocks(data: bytes, at: int) -> int:
    """Where the sub-blocks that begin at `at` end."""
    while length := data[at]:
        at += length + 1
    return at + 1


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
