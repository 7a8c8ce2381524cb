"""Pictures that were whole once: cut off, bits flipped, parts in the wrong order, something behind the end."""

from random import Random

from tests.damaged.expected import OF_THE_PICTURE, Decodes, Expected
from tests.damaged.inputs import Damaged, Picture
from tests.damaged.pictures import ENCODERS, any_whole, whole

MAGIC_BYTES = 16
"""What is cut before here may not be known for a picture at all."""


def truncated(rng: Random, index: int) -> Damaged:
    """Cut off at a random place that leaves out pixels for sure."""
    name = list(ENCODERS)[index % len(ENCODERS)]
    data = whole(name, rng.choice((64, 96, 128, 160)))
    # A third within the first bytes, where the parsers are; nine tenths at most, for behind the pixels stand tags.
    kept = rng.randrange(1, min(600, len(data) // 2)) if index % 3 == 0 else rng.randrange(1, len(data) * 9 // 10)
    reasons = {"INVALID_IMAGE"} | ({"UNSUPPORTED_MEDIA"} if kept < MAGIC_BYTES else set())
    return Damaged(
        kind="truncated",
        index=index,
        what=f"{name} after {kept} of {len(data)} bytes",
        make=lambda: Picture(data=data[:kept]),
        expected=Expected(reasons=frozenset(reasons)),
    )


def bit_flipped(rng: Random, index: int) -> Damaged:
    """One to 64 bits flipped, half of the time in the head."""
    name, data = any_whole(rng)
    flips, reach = rng.choice((1, 2, 8, 64)), rng.choice((min(512, len(data)), len(data)))
    places = [rng.randrange(reach * 8) for _ in range(flips)]

    def make() -> Picture:
        flipped = bytearray(data)
        for place in places:
            flipped[place // 8] ^= 1 << place % 8
        return Picture(data=bytes(flipped))

    return Damaged(
        kind="bit flipped",
        index=index,
        what=f"{name}, {flips} in {reach} bytes",
        make=make,
        expected=Expected(reasons=OF_THE_PICTURE, decodes=Decodes.PERHAPS),
    )


def swapped(rng: Random, index: int) -> Damaged:
    """Two blocks of one size have changed places, or the bytes of every pair in a stretch."""
    name, data = any_whole(rng)
    length = rng.choice((2, 4, 16, 64, 256, 1024))
    first, second = sorted(rng.randrange(len(data) - length) for _ in range(2))

    def make() -> Picture:
        out = bytearray(data)
        if index % 2:
            out[first : first + length], out[second : second + length] = (
                out[second : second + length],
                out[first : first + length],
            )
        else:
            stretch = out[first : first + length]
            stretch[::2], stretch[1::2] = stretch[1::2], stretch[::2]
            out[first : first + length] = stretch
        return Picture(data=bytes(out))

    return Damaged(
        kind="swapped",
        index=index,
        what=f"{name}, {length} bytes at {first} and {second}" if index % 2 else f"{name}, pairs at {first}",
        make=make,
        expected=Expected(reasons=OF_THE_PICTURE, decodes=Decodes.PERHAPS),
    )


def trailing_junk(rng: Random, index: int) -> Damaged:
    """Something behind the picture's end, which every viewer passes over."""
    name, data = any_whole(rng)
    other_name, other = any_whole(rng)
    junk = {
        "noise": rng.randbytes(rng.randrange(1, 5000)),
        "zeros": bytes(rng.randrange(1, 100_000)),
        f"a {other_name}": other,
        "the same again": data,
        "a PDF": b"%PDF-1.7\n" + rng.randbytes(500) + b"%%EOF",
        "a megabyte": rng.randbytes(1024) * 1024,
    }
    what = list(junk)[index % len(junk)]
    return Damaged(
        kind="trailing junk",
        index=index,
        what=f"{name} before {what}",
        make=lambda: Picture(data=data + junk[what]),
        expected=Expected(decodes=Decodes.ALWAYS),
    )
