"""Faces that look like one met before, by the overlap audit's own rule (docs/adr/0034), one new face at a time.

Shapes: N faces so far, W = 4 words of 64 bits, T = 48 pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.training.data.overlap import (
    HASH_SIDE,
    MAX_DISTANCE,
    MIN_CORRELATION,
    correlation_of,
    difference_hash,
    hash_distances,
)

_WORDS: Final = HASH_SIDE**2 // 64
_BLOCK: Final = 16384
"""Hashes compared at once: what fits into a core's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A face that looks the same.

    Attributes:
        row: its number in the index.
        distance: bits of 256 in which the hashes differ.
        correlation: of the blurred thumbs.
        mirrored: whether it is the mirror image that looks the same.
    """

    row: int
    distance: int
    correlation: float
    mirrored: bool


class LooksIndex:
    """Faces in the order they came; holds 32 bytes of each, and asks for a thumb where hashes are near.

    Args:
        thumb: gives the thumb (T, T) of a row.
    """

    def __init__(self, thumb: Callable[[int], NDArray[np.uint8]]) -> None:
        self._thumb = thumb
        self._bits_NW: NDArray[np.uint64] = np.zeros((1024, _WORDS), np.uint64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, bits_MW: NDArray[np.uint64]) -> None:
        """Append faces by their hashes."""
        needed = self._count + len(bits_MW)
        if needed > len(self._bits_NW):
            grown = np.zeros((max(needed, 2 * len(self._bits_NW)), _WORDS), np.uint64)
            grown[: self._count] = self._bits_NW[: self._count]
            self._bits_NW = grown
        self._bits_NW[self._count : needed] = bits_MW
        self._count = needed

    def find(self, bits_W: NDArray[np.uint64], thumb_TT: NDArray[np.uint8]) -> Match | None:
        """The face that looks most like a new one, if any does."""
        best: Match | None = None
        for mirrored in (False, True):
            thumb = np.ascontiguousarray(thumb_TT[:, ::-1]) if mirrored else thumb_TT
            hashed = difference_hash(thumb) if mirrored else bits_W
            for row, distance in self._near(hashed):
                correlation = correlation_of(thumb, self._thumb(row))
                if correlation >= MIN_CORRELATION and (best is None or correlation > best.correlation):
                    best = Match(row=row, distance=distance, correlation=correlation, mirrored=mirrored)
        return best

    def _near(self, bits_W: NDArray[np.uint64]) -> list[tuple[int, int]]:
        found = []
        for start in range(0, self._count, _BLOCK):
            block_BW = self._bits_NW[start : min(start + _BLOCK, self._count)]
            distance_B = hash_distances(bits_W[None], block_BW)[0]
            found += [(start + int(row), int(distance_B[row])) for row in np.flatnonzero(distance_B <= MAX_DISTANCE)]
        return found
