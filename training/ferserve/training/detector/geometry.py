"""Cells, and what the net says of them, as numbers: the inverse of `ferserve.faces.detectors.decoding`.

Shapes: A cells of all strides one after the other, each stride row by row; F faces. A cell's fifteen numbers are its
score, four of the box, ten of the landmarks.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.detectors.decoding import STRIDES

NUMBERS: Final = 15
"""Score 1, box 4, landmarks 10."""
MIRRORED: Final = (1, 0, 2, 4, 3)
"""Rows of the landmarks after a mirror: the person's right is on the other side."""


def cell_grid(height_px: int, width_px: int) -> NDArray[np.float32]:
    """Column, row and stride of every cell, float32, shape (A, 3).

    Args:
        height_px, width_px: of the net's input, multiples of the coarsest stride.
    """
    parts = []
    for stride in STRIDES:
        rows, columns = np.mgrid[: height_px // stride, : width_px // stride]
        parts.append(np.stack((columns.ravel(), rows.ravel(), np.full(rows.size, stride)), axis=1))
    return np.concatenate(parts).astype(np.float32)


def encode(
    boxes: NDArray[np.float32], landmarks: NDArray[np.float32], cells: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What cells must say of faces, one face a cell.

    Args:
        boxes: x0, y0, x1, y1 in pixels, shape (F, 4), each with an area.
        landmarks: shape (F, 5, 2).
        cells: rows of `cell_grid`, shape (F, 3).
    Returns:
        Box and landmarks, shape (F, 14).
    """
    corner, stride = cells[:, :2], cells[:, 2:]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = boxes[:, 2:] - boxes[:, :2]
    points = landmarks / stride[:, :, None] - corner[:, None]
    parts = (centre / stride - corner, np.log(size / stride), points.reshape(len(boxes), NUMBERS - 5))
    return np.concatenate(parts, axis=1).astype(np.float32)


def decode_boxes(numbers: NDArray[np.float32], cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes x0, y0, x1, y1 in pixels, shape (F, 4), of rows that start with the box's four numbers."""
    stride = cells[:, 2:]
    centre = (cells[:, :2] + numbers[:, :2]) * stride
    half = np.exp(numbers[:, 2:4]) * stride / 2
    return np.concatenate((centre - half, centre + half), axis=1)


def overlaps(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of every pair of boxes, shape (len(first), len(second))."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union: NDArray[np.float32] = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(shared / np.maximum(union, 1e-9), dtype=np.float32)


def turned_boxes(boxes: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """Bounds of the ellipses inside boxes after an affine map: a head turns as an ellipse does, not as its box.

    Args:
        boxes: shape (F, 4).
        matrix: shape (2, 3), on continuous coordinates.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    moved = centre @ matrix[:, :2].T + matrix[:, 2]
    reach = np.sqrt((half**2) @ (matrix[:, :2].T ** 2))
    return np.concatenate((moved - reach, moved + reach), axis=1).astype(np.float32)


def moved_points(points: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """Points (..., 2) through an affine map of shape (2, 3)."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], dtype=np.float32)
