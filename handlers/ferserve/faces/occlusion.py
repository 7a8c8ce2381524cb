"""Which parts of a face an expression's score rests on: cover one part after another and see what the score loses.

Source: Zeiler and Fergus 2014, section 4.2. What is covered becomes the face's own mean brightness: black or white
would be a feature of its own. The map is the archive's, not a person's: where it is high the network looked.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.types import Crop

MIN_GRID, MAX_GRID = 2, 12
"""Places along one side. The cost is the square of it, in faces scored."""
PATCH: Final = 0.25
"""Side of what is covered, over the crop's: about one eye or half a mouth."""

OcclusionMap = NDArray[np.float32]
"""What the score loses, shape (G, G), rows from the crop's top, -1 to 1; above 0 the part speaks for the expression."""


def occluded_crops(crop: Crop, *, grid: int) -> NDArray[np.uint8]:
    """The same face with one place after another covered.

    Args:
        crop: uint8, shape (S, S, C).
        grid: G, places along one side, 2 to 12; their middles are spread evenly and their edges overlap.
    Returns:
        uint8, shape (G * G, S, S, C), row by row from the top left.
    Raises:
        ValueError: `grid` is out of range.
    """
    if not MIN_GRID <= grid <= MAX_GRID:
        raise ValueError(f"grid must be {MIN_GRID} to {MAX_GRID}, got {grid}")
    side_px = crop.shape[0]
    covered = np.repeat(crop[None], grid * grid, axis=0)
    mean = np.rint(crop.mean(axis=(0, 1))).astype(np.uint8)
    spans = [_span(place, grid, side_px) for place in range(grid)]
    for index, (rows, columns) in enumerate((rows, columns) for rows in spans for columns in spans):
        covered[index, rows, columns] = mean
    return covered


def occlusion_map(scores: NDArray[np.float32], covered: NDArray[np.float32]) -> OcclusionMap:
    """What the face's top expression loses at each place.

    Args:
        scores: of the face as it is, shape (7,).
        covered: of `occluded_crops`, shape (G * G, 7).
    Returns:
        Shape (G, G).
    """
    top = int(np.argmax(scores))
    grid = round(len(covered) ** 0.5)
    return np.asarray(scores[top] - covered[:, top], dtype=np.float32).reshape(grid, grid)


def _span(place: int, grid: int, side_px: int) -> slice:
    middle = (place + 0.5) / grid * side_px
    half = max(PATCH * side_px / 2, 0.5)
    return slice(max(round(middle - half), 0), min(round(middle + half), side_px))
