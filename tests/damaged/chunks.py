"""The pieces that picture files are made of, put together by hand where no encoder would write them."""

import struct
import zlib
from collections.abc import Sequence

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_SHORT, _LONG = 3, 4


def png_chunk(name: bytes, body: bytes) -> bytes:
    """One chunk with its checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, pixels: bytes, *, depth: int = 8, colours: int = 0, extra: bytes = b"") -> bytes:
    """A PNG of compressed `pixels`; `extra` stands between head and pixels."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))
    return PNG_MAGIC + head + extra + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def png_with(data: bytes, chunk: bytes) -> bytes:
    """A whole PNG with one more chunk behind its head."""
    behind = len(PNG_MAGIC) + 25
    return data[:behind] + chunk + data[behind:]


def jpeg_with(data: bytes, segments: bytes) -> bytes:
    """A whole JPEG with more segments at its beginning."""
    return data[:2] + segments + data[2:]


def jpeg_segment(marker: int, body: bytes) -> bytes:
    """One segment of a JPEG; its body has at most 65,533 bytes."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg_of_size(data: bytes, width: int, height: int) -> bytes:
    """A JPEG that announces another size than it has."""
    out = bytearray(data)
    frame = next(at for at in range(len(data)) if data[at] == 0xFF and data[at + 1] in (0xC0, 0xC2))
    out[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(out)


def webp(chunk: bytes, body: bytes) -> bytes:
    """A WebP of one chunk."""
    padded = body + bytes(len(body) % 2)
    return b"RIFF" + struct.pack("<I", 12 + len(padded)) + b"WEBP" + chunk + struct.pack("<I", len(body)) + padded


def bmp(width: int, height: int, pixels: bytes, *, bits: int = 24) -> bytes:
    """A BMP with the plain head of 40 bytes."""
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, len(pixels), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + head + pixels


def gif(screen: tuple[int, int], frame: tuple[int, int], pixels: bytes) -> bytes:
    """A GIF of one frame; `pixels` are its sub-blocks as they stand in the file."""
    palette = bytes(6)
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", *screen, 0x80, 0, 0)
        + palette
        + struct.pack("<BHHHHB", 0x2C, 0, 0, *frame, 0)
        + b"\x02"
        + pixels
        + b"\x00;"
    )


def tiff(entries: Sequence[tuple[int, int, int, int]], behind: bytes = b"", *, following: int = 0) -> bytes:
    """A little-endian TIFF of one directory at byte 8; entries are tag, type, count and value or place.

    Args:
        behind: stands right behind the directory, at byte 14 + 12 for each entry.
        following: place of the next directory.
    """
    body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\x00" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", following) + behind


def grey_tiff(
    width: int, height: int, strip: bytes, *, compression: int = 1, bits: int = 8, following: int = 0
) -> bytes:
    """A TIFF of one grey strip."""
    count = 9
    values = {
        256: width,
        257: height,
        258: bits,
        259: compression,
        262: 1,
        273: 14 + 12 * count,
        277: 1,
        278: height,
        279: len(strip),
    }
    return tiff([(tag, _LONG, 1, value) for tag, value in values.items()], strip, following=following)
