"""The corpus: so many inputs of each kind, each drawn from a seed of its own."""

from collections.abc import Callable
from random import Random

from tests.damaged.animations import animated
from tests.damaged.bombs import header_bomb, many_segments, pixel_bomb
from tests.damaged.broken_files import bit_flipped, swapped, trailing_junk, truncated
from tests.damaged.connections import grpc_port, half_closed, http, slow_sender
from tests.damaged.exif_blocks import damaged_exif, looping_tiff
from tests.damaged.grpc_forms import abandoned_stream, broken_stream, empty_frames, options, protobuf
from tests.damaged.inputs import Damaged
from tests.damaged.large_bodies import oversized
from tests.damaged.odd_modes import odd_mode
from tests.damaged.other_files import extreme_aspect, hollow, one_pixel, wrong_type
from tests.damaged.rest_forms import content_type, headers, json_body, multipart, query

KINDS: dict[Callable[[Random, int], Damaged], int] = {
    truncated: 260,
    bit_flipped: 260,
    swapped: 120,
    trailing_junk: 60,
    wrong_type: 96,
    hollow: 30,
    one_pixel: 26,
    extreme_aspect: 60,
    header_bomb: 104,
    pixel_bomb: 20,
    many_segments: 14,
    damaged_exif: 90,
    looping_tiff: 10,
    animated: 45,
    odd_mode: 99,
    oversized: 20,
    multipart: 84,
    json_body: 82,
    query: 75,
    headers: 70,
    content_type: 36,
    http: 63,
    grpc_port: 14,
    slow_sender: 18,
    half_closed: 42,
    protobuf: 110,
    options: 36,
    broken_stream: 18,
    abandoned_stream: 24,
    empty_frames: 14,
}
"""How many there are of each; 2,000 together."""


def corpus(seed: int = 0) -> list[Damaged]:
    """All inputs, in an order that mixes the kinds.

    Args:
        seed: the same one gives the same bytes on every machine with the same encoders.
    """
    inputs = [
        make(Random(f"{seed} {make.__name__} {index}"), index)
        for make, count in KINDS.items()
        for index in range(count)
    ]
    Random(f"{seed} order").shuffle(inputs)
    return inputs


def sample(count: int, seed: int = 0) -> list[Damaged]:
    """About `count` inputs of the corpus, at least one of each kind, spread over each kind's forms."""
    inputs = corpus(seed)
    by_kind: dict[str, list[Damaged]] = {}
    for one in sorted(inputs, key=lambda one: one.index):
        by_kind.setdefault(one.kind, []).append(one)
    chosen = set()
    for of_kind in by_kind.values():
        wanted = max(round(len(of_kind) * count / len(inputs)), 1)
        chosen |= {of_kind[place * len(of_kind) // wanted].name for place in range(wanted)}
    return [one for one in inputs if one.name in chosen]
