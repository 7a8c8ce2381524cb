"""How a picture larger than the network's window is searched: at falling scales, in overlapping tiles.

At the first scale the tiles find the small faces; a face that a tile's edge cuts is left to the neighbour that has it
whole, or, if it is larger than the overlap, to the next scale, where it is a quarter of the size. The last scale shows
the whole picture at once, small enough for a face that fills it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.detectors.decoding import PAD_TO_PX

OVERLAP_PX: Final = 128
"""Neighbouring tiles share at least so much, so faces up to `OVERLAP_PX - 2 * EDGE_PX` lie whole in one of them."""
EDGE_PX: Final = 4
"""A box that comes so near to a tile's inner edge may be half a face."""
SCALE_STEP: Final = 4.0
"""What just does not fit the overlap still has 32 pixels at the next scale: an easy size."""
SINGLE_PX: Final = 800
"""Up to this longer side one scale is enough: YuNet's stride-32 cells see a face of 400 pixels, and fewer and fewer of
the larger ones (of 40 faces enlarged to 500 pixels it finds 38, to 800 pixels 23)."""
WHOLE_PX: Final = 640
"""The last scale of larger pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A half-open part of a picture, in its pixels."""

    x0: int
    y0: int
    x1: int
    y1: int

    def covers(self, width_px: int, height_px: int) -> bool:
        """Whether it is the whole of a picture of that size: it cuts no face."""
        return (self.x0, self.y0, self.x1, self.y1) == (0, 0, width_px, height_px)


def sizes(width_px: int, height_px: int, *, scale: float, window_px: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The sizes at which a picture is searched, the largest first; the last one fits the window.

    Args:
        scale: of the largest, more than 0.
        window_px: the network's largest width and height.
    Returns:
        Width and height in pixels, each at least 1.
    """
    last = min(window_px[0] / width_px, window_px[1] / height_px, WHOLE_PX / max(width_px, height_px))
    size = _scaled(width_px, height_px, scale)
    while size[0] > window_px[0] or size[1] > window_px[1] or max(size) > SINGLE_PX:
        yield size
        scale = max(scale / SCALE_STEP, last)
        size = _scaled(width_px, height_px, scale)
    yield size


def tiles(width_px: int, height_px: int, *, window_px: tuple[int, int]) -> list[Tile]:
    """Cover a picture with the fewest tiles that fit the window and overlap, no larger than they need to be.

    Neighbours have `OVERLAP_PX` in common, or half of a window that is smaller than two overlaps.
    """
    return [
        Tile(x0=x0, y0=y0, x1=x1, y1=y1)
        for y0, y1 in _spans(height_px, window_px[1])
        for x0, x1 in _spans(width_px, window_px[0])
    ]


def whole_faces(boxes: NDArray[np.float32], tile: Tile, *, width_px: int, height_px: int) -> NDArray[np.bool_]:
    """Which boxes keep clear of the tile's inner edges; the picture's own edges cut nothing that is elsewhere whole.

    Args:
        boxes: x0, y0, x1, y1 in pixels of the picture, shape (N, 4).
        width_px, height_px: of the picture.
    Returns:
        A mask, shape (N,).
    """
    low = np.array([tile.x0 + EDGE_PX if tile.x0 > 0 else -np.inf, tile.y0 + EDGE_PX if tile.y0 > 0 else -np.inf])
    high = np.array(
        [
            tile.x1 - EDGE_PX if tile.x1 < width_px else np.inf,
            tile.y1 - EDGE_PX if tile.y1 < height_px else np.inf,
        ]
    )
    return np.asarray(((boxes[:, :2] >= low) & (boxes[:, 2:] <= high)).all(axis=1), dtype=np.bool_)


def _scaled(width_px: int, height_px: int, scale: float) -> tuple[int, int]:
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))


def _spans(length_px: int, window_px: int) -> list[tuple[int, int]]:
    if length_px <= window_px:
        return [(0, length_px)]
    overlap = min(OVERLAP_PX, window_px // 2)
    count = math.ceil((length_px - overlap) / (window_px - overlap))
    # Whole cells, so that nothing is spent on padding.
    span = -(-(length_px + (count - 1) * overlap) // (count * PAD_TO_PX)) * PAD_TO_PX
    starts = [index * (length_px - span) // (count - 1) for index in range(count)]
    return [(start, start + span) for start in starts]
