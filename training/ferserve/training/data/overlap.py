"""Pictures that stand in two sets or splits: pixel for pixel, and by their looks (see docs/adr/0034).

By their looks means: the difference hash (Krawetz 2013), here of 16 x 16 bits, is near, and the blurred grey pictures
correlate. The hash alone takes two plain portraits for one, the correlation alone is slow over all pairs.

Shapes: N and M pictures, W = 4 words of 64 bits, T = 48 pixels, P pairs.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ferserve.faces.types import Image
from ferserve.training.data.sets import Pictures

HASH_SIDE: Final = 16
MAX_DISTANCE: Final = 48
"""Of 256 bits; re-encoded, resized, relit and noisy copies of FER-2013's 280 leaked pictures stay within 30."""
MIN_CORRELATION: Final = 0.93
"""Of the blurred pictures. Of pairs looked at from here up one in twelve was two pictures, below it one in three."""
THUMB_PX: Final = 48
_BLUR_PX: Final = 1.0
_BLOCK: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prints:
    """What pictures are compared by.

    Attributes:
        exact: SHA-256 of pixels and shape, of each picture.
        bits_NW: difference hashes, uint64.
        thumbs_NTT: grey, uint8.
    """

    exact: tuple[bytes, ...]
    bits_NW: NDArray[np.uint64]
    thumbs_NTT: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """P pairs of one picture, as rows of the first and of the second set.

    Attributes:
        distance: bits in which the hashes differ, 0 for pixel-identical pictures.
        correlation: of the blurred pictures, 1 for pixel-identical ones.
        mirrored: whether one is the other's mirror image.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    distance: NDArray[np.int64]
    correlation: NDArray[np.float64]
    mirrored: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlap:
    """What two sets have in common; a pair is in one of the two lists."""

    exact: Pairs
    near: Pairs


def difference_hash(grey: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Whether each of 16 x 16 cells is darker than its right neighbour: 256 bits, uint64, shape (4,)."""
    small = cv2.resize(grey, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA)
    bits: NDArray[np.uint64] = np.packbits(small[:, 1:] > small[:, :-1]).view(np.uint64)
    return bits


def make_prints(pictures: Pictures, *, on_picture: Callable[[], None] = lambda: None) -> Prints:
    """Read every picture once.

    Args:
        on_picture: called after each, to show progress.
    Raises:
        DataError: one cannot be decoded.
    """
    exact, bits, thumbs = [], [], []
    for row in range(len(pictures)):
        image = pictures.read(row)
        exact.append(_pixel_hash(image))
        hashed, thumb = looks(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8))
        bits.append(hashed)
        thumbs.append(thumb)
        on_picture()
    return Prints(
        exact=tuple(exact),
        bits_NW=np.stack(bits) if bits else np.zeros((0, HASH_SIDE**2 // 64), np.uint64),
        thumbs_NTT=np.asarray(thumbs, dtype=np.uint8).reshape(-1, THUMB_PX, THUMB_PX),
    )


def looks(grey: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """What a picture (H, W) is compared by if not pixel for pixel: its hash, shape (4,), and its thumb, (T, T)."""
    size = (THUMB_PX, THUMB_PX)
    thumb = grey if grey.shape == size else cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return difference_hash(grey), np.asarray(thumb, dtype=np.uint8)


def hash_distances(bits_NW: NDArray[np.uint64], others_MW: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Bits in which hashes differ, shape (N, M)."""
    distance_NM = np.zeros((len(bits_NW), len(others_MW)), np.uint16)
    for word in range(bits_NW.shape[1]):
        distance_NM += np.bitwise_count(bits_NW[:, word, None] ^ others_MW[None, :, word])
    return distance_NM


def _pixel_hash(image: Image) -> bytes:
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).digest()


def find_overlap(first: Prints, second: Prints | None = None) -> Overlap:
    """Compare every picture of one set with every one of another, or with those behind it in its own.

    Args:
        second: None looks for repetitions inside `first`.
    """
    other = first if second is None else second
    exact = _exact_pairs(first, other, inside=second is None)
    known = set(zip(exact.first.tolist(), exact.second.tolist(), strict=True))
    rows = [
        row
        for mirrored in (False, True)
        for row in _near_rows(first, other, inside=second is None, mirrored=mirrored)
        if row[:2] not in known
    ]
    best: dict[tuple[int, int], tuple[int, int, int, float, bool]] = {}
    for row in rows:  # a symmetrical face is near both ways round; it counts once, the better way
        if row[:2] not in best or row[3] > best[row[:2]][3]:
            best[row[:2]] = row
    return Overlap(exact=exact, near=_as_pairs(sorted(best.values())))


def _exact_pairs(first: Prints, second: Prints, *, inside: bool) -> Pairs:
    where: dict[bytes, list[int]] = {}
    for row, digest in enumerate(second.exact):
        where.setdefault(digest, []).append(row)
    return _as_pairs(
        [
            (row, other, 0, 1.0, False)
            for row, digest in enumerate(first.exact)
            for other in where.get(digest, ())
            if not inside or other > row
        ]
    )


_Row = tuple[int, int, int, float, bool]


def _near_rows(first: Prints, second: Prints, *, inside: bool, mirrored: bool) -> Iterator[_Row]:
    """Rows of pairs whose hashes are near and whose thumbs correlate."""
    thumbs_NTT = first.thumbs_NTT[:, :, ::-1] if mirrored else first.thumbs_NTT
    bits_NW = (
        np.stack([difference_hash(thumb) for thumb in thumbs_NTT]) if mirrored and len(thumbs_NTT) else first.bits_NW
    )
    for start in range(0, len(bits_NW), _BLOCK):
        distance_BM = hash_distances(bits_NW[start : start + _BLOCK], second.bits_NW)
        for near, other in np.argwhere(distance_BM <= MAX_DISTANCE).tolist():
            row = start + near
            if inside and other <= row:
                continue
            correlation = correlation_of(thumbs_NTT[row], second.thumbs_NTT[other])
            if correlation >= MIN_CORRELATION:
                yield row, other, int(distance_BM[near, other]), correlation, mirrored


def correlation_of(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Pearson's, of the blurred pictures; 0 where one of them is a single grey."""
    a, b = (
        cv2.GaussianBlur(np.ascontiguousarray(thumb), (0, 0), _BLUR_PX).astype(np.float64).ravel()
        for thumb in (one, other)
    )
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else 0.0


def _as_pairs(rows: list[_Row]) -> Pairs:
    first, second, distance, correlation, mirrored = zip(*rows, strict=True) if rows else ((),) * 5
    return Pairs(
        first=np.asarray(first, np.int64),
        second=np.asarray(second, np.int64),
        distance=np.asarray(distance, np.int64),
        correlation=np.asarray(correlation, np.float64),
        mirrored=np.asarray(mirrored, np.bool_),
    )
