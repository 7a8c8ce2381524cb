"""Small files that stand for huge pictures, and pictures just as large as is allowed."""

import struct
import zlib
from functools import cache
from random import Random

from tests.damaged.chunks import (
    bmp,
    gif,
    grey_tiff,
    jpeg_of_size,
    jpeg_segment,
    jpeg_with,
    png,
    png_chunk,
    png_with,
    tiff,
    webp,
)
from tests.damaged.expected import OF_THE_PICTURE, Decodes, Expected
from tests.damaged.inputs import Damaged, Picture
from tests.damaged.pictures import whole

LIMIT_PX = 64_000_000
"""The default limit; what is at it is taken, what is above it is refused."""
HUGE_PX = 20_000


def header_bomb(rng: Random, index: int) -> Damaged:
    """A head that announces far too many pixels, with next to nothing behind it."""
    if index % 4 == 3:
        return _odd_head(rng, index)
    side = HUGE_PX if index % 2 else rng.randrange(8_001, 60_000)
    noise = rng.randbytes(rng.randrange(20, 500))
    heads = {
        "png": png(side, side, zlib.compress(noise), colours=2),
        "jpeg": jpeg_of_size(whole("jpeg", 64), side, side),
        "progressive jpeg": jpeg_of_size(whole("progressive jpeg", 64), side, side),
        "webp canvas": webp(b"VP8X", bytes(4) + (side - 1).to_bytes(3, "little") * 2) + webp(b"VP8 ", noise)[12:],
        "lossless webp": webp(b"VP8L", b"\x2f" + struct.pack("<I", 16_383 << 14 | 16_383) + noise),
        "lossy webp": webp(b"VP8 ", b"\x30\x01\x00\x9d\x01\x2a" + struct.pack("<HH", 16_383, 16_383) + noise),
        "bmp": bmp(side, side, noise),
        "bmp of one bit": bmp(side, -side, noise, bits=1),
        "tiff": grey_tiff(side, side, noise),
        "packed tiff": grey_tiff(side, side, zlib.compress(noise), compression=8),
        "gif": gif((side, side), (side, side), b"\x02\x4c\x01"),
        "gif with a huge frame": gif((1, 1), (side, side), b"\x02\x4c\x01"),
        "gif with a huge screen": gif((side, side), (1, 1), b"\x02\x4c\x01"),
    }
    what = list(heads)[index % len(heads)]
    # A huge WebP has more than one thing wrong with it: libwebp may find its first chunk broken before anyone counts.
    reasons = {"IMAGE_TOO_LARGE"} | ({"INVALID_IMAGE"} if "webp" in what else set())
    return Damaged(
        kind="header bomb",
        index=index,
        what=f"{what} of {side} x {side}",
        make=lambda: Picture(data=heads[what]),
        expected=Expected(reasons=frozenset(reasons)),
    )


def _odd_head(rng: Random, index: int) -> Damaged:
    """Sizes that no picture has: none at all, the largest number there is, a negative one."""
    noise = rng.randbytes(100)
    heads = {
        "png of 0 x 9": png(0, 9, zlib.compress(noise)),
        "png of 2^31-1": png(2**31 - 1, 2**31 - 1, zlib.compress(noise)),
        "png of 2^32-1 x 1": png(2**32 - 1, 1, zlib.compress(noise)),
        "jpeg of 0 x 0": jpeg_of_size(whole("jpeg", 64), 0, 0),
        "jpeg of no height": jpeg_of_size(whole("jpeg", 64), 64, 0),
        "bmp of 0 x 0": bmp(0, 0, noise),
        "bmp of -2^31": bmp(-(2**31), -(2**31), noise),
        "bmp of 9 x -2^31": bmp(9, -(2**31), noise),
        "tiff of 0 x 0": grey_tiff(0, 0, noise),
        "tiff of 2^32-1": grey_tiff(2**32 - 1, 2**32 - 1, noise),
        "tiff without a size": tiff([(259, 4, 1, 1)]),
        "gif of 0 x 0": gif((0, 0), (0, 0), b"\x02\x4c\x01"),
        "gif without a frame": gif((9, 9), (9, 9), b"\x02\x4c\x01")[:13] + b";",
        "webp of no size": webp(b"VP8 ", b"\x30\x01\x00\x9d\x01\x2a" + bytes(4) + noise),
    }
    what = list(heads)[index // 4 % len(heads)]
    return Damaged(
        kind="header bomb",
        index=index,
        what=what,
        make=lambda: Picture(data=heads[what]),
        expected=Expected(reasons=OF_THE_PICTURE),
    )


def pixel_bomb(rng: Random, index: int) -> Damaged:
    """Files that do unpack to what they announce: too many pixels, too much text, too many passes."""
    bombs = {
        "png of 20,000 x 20,000": (_one_bit_png, HUGE_PX, {"IMAGE_TOO_LARGE"}, Decodes.NEVER),
        "tiff of 20,000 x 20,000": (_one_bit_tiff, HUGE_PX, {"IMAGE_TOO_LARGE"}, Decodes.NEVER),
        "png one row above the limit": (_one_bit_png, 8_001, {"IMAGE_TOO_LARGE"}, Decodes.NEVER),
        "png at the limit": (_one_bit_png, 8_000, set(), Decodes.ALWAYS),
        "tiff at the limit": (_one_bit_tiff, 8_000, set(), Decodes.ALWAYS),
        "png with a text of 100 MB": (_wordy_png, b"zTXt", {"INVALID_IMAGE"}, Decodes.PERHAPS),
        "png with a profile of 100 MB": (_wordy_png, b"iCCP", {"INVALID_IMAGE"}, Decodes.PERHAPS),
        "jpeg of 3,000 scans": (_endless_jpeg, 3_000, {"INVALID_IMAGE"}, Decodes.NEVER),
        "tiff of tiles of 32,000": (_tiled_tiff, 32_000, {"IMAGE_TOO_LARGE"}, Decodes.NEVER),
        "gif of endless comments": (_wordy_gif, rng.randrange(9_000, 12_000), {"INVALID_IMAGE"}, Decodes.PERHAPS),
    }
    what = list(bombs)[index % len(bombs)]
    build, argument, reasons, decodes = bombs[what]
    return Damaged(
        kind="pixel bomb",
        index=index,
        what=what,
        make=lambda: Picture(data=build(argument)),
        expected=Expected(reasons=frozenset(reasons), decodes=decodes),
    )


@cache
def _zeros(count: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(count >> 20)) + (
        packer.compress(bytes(count & (2**20 - 1))) + packer.flush()
    )


def _one_bit_png(side: int) -> bytes:
    return png(side, side, _zeros(side * (side // 8 + (side % 8 > 0) + 1)), depth=1)


def _one_bit_tiff(side: int) -> bytes:
    return grey_tiff(side, side, _zeros(side * side // 8), compression=8, bits=1)


def _wordy_png(chunk: bytes) -> bytes:
    return png_with(whole("png", 64), png_chunk(chunk, b"words\x00\x00" + _zeros(100 * 2**20)))


def _endless_jpeg(scans: int) -> bytes:
    data = whole("progressive jpeg", 64)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def _tiled_tiff(side: int) -> bytes:
    tile = zlib.compress(bytes(256))
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 14 + 12 * 10, 325: len(tile)}
    return tiff([(tag, 4, 1, value) for tag, value in tags.items()], tile)


def _wordy_gif(comments: int) -> bytes:
    data = whole("gif", 64)
    behind = 13 + (3 << (data[10] & 7) + 1)
    return data[:behind] + (b"!\xfe\xff" + b"w" * 255 + b"\x00") * comments + data[behind:]


def many_segments(rng: Random, index: int) -> Damaged:
    """JPEGs whose pixels stand behind thousands of segments, and segments that say they are longer than they are."""
    noise = rng.randbytes(30)
    forms = {
        "5,000 comments": (lambda: jpeg_segment(0xFE, noise) * 5_000, Decodes.ALWAYS),
        "300 full comments": (lambda: jpeg_segment(0xFE, b"w" * 65_533) * 300, Decodes.ALWAYS),
        "2,000 tables": (lambda: jpeg_segment(0xDB, b"\x00" + b"\x10" * 64) * 2_000, Decodes.PERHAPS),
        "a profile in 255 parts": (_profile, Decodes.PERHAPS),
        "a segment beyond the end": (lambda: b"\xff\xe5\xff\xff", Decodes.PERHAPS),
        "a segment of length 0": (lambda: b"\xff\xe5\x00\x00", Decodes.PERHAPS),
        "fill bytes": (lambda: b"\xff" * 50_000, Decodes.PERHAPS),
    }
    what = list(forms)[index % len(forms)]
    segments, decodes = forms[what]
    return Damaged(
        kind="many segments",
        index=index,
        what=what,
        make=lambda: Picture(data=jpeg_with(whole("jpeg", 96), segments())),
        expected=Expected(reasons=frozenset({"INVALID_IMAGE"}), decodes=decodes),
    )


def _profile() -> bytes:
    parts = (b"ICC_PROFILE\x00" + bytes((part, 255)) + b"p" * 60_000 for part in range(1, 256))
    return b"".join(jpeg_segment(0xE2, part) for part in parts)
