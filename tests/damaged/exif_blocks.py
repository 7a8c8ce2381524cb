"""Whole pictures with EXIF blocks that lie: loops, depths, endless counts, places outside the file."""

import struct
from random import Random

from tests.damaged.chunks import grey_tiff, jpeg_segment, jpeg_with, png_chunk, png_with
from tests.damaged.expected import Decodes, Expected
from tests.damaged.inputs import Damaged, Picture
from tests.damaged.pictures import encode, face, whole

_ORIENTATION, _EXIF_DIRECTORY, _GPS_DIRECTORY, _NOTE = 0x0112, 0x8769, 0x8825, 0x927C
_SHORT, _LONG, _RATIONAL, _UNDEFINED = 3, 4, 5, 7
_BLOCK_BYTES = 65_000


def damaged_exif(rng: Random, index: int) -> Damaged:
    """A whole picture whose EXIF block is none; it says nothing that pixels need, so the picture is answered."""
    blocks = _blocks(rng)
    what = list(blocks)[index % len(blocks)]
    block = blocks[what]
    carriers = {
        "jpeg": lambda: jpeg_with(whole("jpeg", 96), jpeg_segment(0xE1, b"Exif\x00\x00" + block)),
        "jpeg, ten times": lambda: jpeg_with(whole("jpeg", 96), jpeg_segment(0xE1, b"Exif\x00\x00" + block) * 10),
        "png": lambda: png_with(whole("png", 96), png_chunk(b"eXIf", block)),
        "webp": lambda: encode(face(96), "WEBP", exif=b"Exif\x00\x00" + block),
    }
    carrier = list(carriers)[index // len(blocks) % len(carriers)]
    return Damaged(
        kind="exif",
        index=index,
        what=f"{what} in a {carrier}",
        make=lambda: Picture(data=carriers[carrier]()),
        expected=Expected(decodes=Decodes.ALWAYS),
    )


def looping_tiff(rng: Random, index: int) -> Damaged:
    """A TIFF, whose own directories are of the same make: the next one is itself, or lies outside the file."""
    followings = (8, 2, 0xFFFFFFFF, rng.randrange(9, 5000), 14)
    following = followings[index % len(followings)]
    return Damaged(
        kind="looping tiff",
        index=index,
        what=f"next directory at {following}",
        make=lambda: Picture(data=grey_tiff(64, 64, bytes(64 * 64), following=following)),
        expected=Expected(reasons=frozenset({"INVALID_IMAGE"}), decodes=Decodes.PERHAPS),
    )


def _entry(tag: int, kind: int, count: int, value: int, order: str = "<") -> bytes:
    return struct.pack(order + "HHII", tag, kind, count, value)


def _directory(*entries: bytes, following: int = 0, count: int | None = None) -> bytes:
    return (
        struct.pack("<H", len(entries) if count is None else count) + b"".join(entries) + struct.pack("<I", following)
    )


def _chain(length: int) -> bytes:
    """So many directories, each of which names the next."""
    step = len(_directory(_entry(_NOTE, _LONG, 1, 0)))
    return b"".join(_directory(_entry(_NOTE, _LONG, 1, n), following=8 + step * (n + 1)) for n in range(length))


def _nested(depth: int) -> bytes:
    """So many directories, each inside the one before."""
    step = len(_directory(_entry(_EXIF_DIRECTORY, _LONG, 1, 0)))
    return b"".join(_directory(_entry(_EXIF_DIRECTORY, _LONG, 1, 8 + step * (n + 1))) for n in range(depth))


def _blocks(rng: Random) -> dict[str, bytes]:
    first = b"II*\x00" + struct.pack("<I", 8)
    noise = rng.randbytes(rng.randrange(1, _BLOCK_BYTES))
    orientation = rng.choice((0, 9, 255, 65_535))
    return {
        "a directory that follows itself": first + _directory(following=8),
        "a directory inside itself": first + _directory(_entry(_EXIF_DIRECTORY, _LONG, 1, 8)),
        "two directories inside each other": first
        + _directory(_entry(_EXIF_DIRECTORY, _LONG, 1, 26), _entry(_GPS_DIRECTORY, _LONG, 1, 8))
        + _directory(_entry(_EXIF_DIRECTORY, _LONG, 1, 8)),
        "3,000 directories in a row": first + _chain(3_000),
        "3,000 directories in depth": first + _nested(3_000),
        "65,535 entries that are not there": first + _directory(count=65_535),
        "5,000 entries": first + _directory(*(_entry(tag, _SHORT, 1, tag) for tag in range(5_000))),
        "a value of 4 GB": first + _directory(_entry(_NOTE, _UNDEFINED, 2**32 - 1, 0)),
        "values outside the block": first + _directory(*(_entry(tag, _RATIONAL, 9, 2**31) for tag in range(282, 290))),
        "a directory outside the block": b"II*\x00" + struct.pack("<I", 2**32 - 1),
        f"an orientation of {orientation}": first + _directory(_entry(_ORIENTATION, _SHORT, 1, orientation)),
        "an orientation of another type": first + _directory(_entry(_ORIENTATION, _RATIONAL, 1, 8)),
        "an orientation of many values": first + _directory(_entry(_ORIENTATION, _SHORT, 2**31, 6)),
        "the other byte order": b"MM" + first[2:] + _directory(_entry(_ORIENTATION, _SHORT, 1, 6)),
        "no byte order": b"XX" + first[2:] + _directory(),
        "a note of noise": first + _directory(_entry(_NOTE, _UNDEFINED, len(noise), 26)) + noise,
        "noise": noise,
        "nothing": b"",
    }
