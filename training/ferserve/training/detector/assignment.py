"""Which cells learn what: the teacher's scores everywhere, and exact faces where the teacher missed them.

Shapes: A cells, F faces, see `geometry`.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.training.detector.geometry import NUMBERS, decode_boxes, encode, overlaps
from ferserve.training.detector.recipe import DetectionObjective

COARSE_FROM_PX: Final = 96.0
"""Larger faces belong to stride 32, smaller to stride 8: where the teacher itself answers (it uses stride 16 beside
stride 8 for some small faces, never alone)."""
RADIUS_CELLS: Final = 1.0
"""Cells no further from a face's centre, along either axis, answer for it (centre sampling, Tian et al. 2019, FCOS)."""
FOUND_OVERLAP: Final = 0.5
LEAST_SCORE: Final = 0.05
"""Cells that the teacher gives less have nothing to say of any face."""


def assign(boxes: NDArray[np.float32], grid: NDArray[np.float32]) -> NDArray[np.intp]:
    """The face that each cell answers for, shape (A,): an index into `boxes`, or -1.

    A cell answers if its stride fits the face's size, its corner lies within `RADIUS_CELLS` of the face's centre and
    inside the box; of several faces the nearest centre wins, relative to the face's size.

    Args:
        boxes: x0, y0, x1, y1 in pixels, shape (F, 4).
        grid: see `geometry.cell_grid`.
    """
    if not len(boxes):
        return np.full(len(grid), -1, dtype=np.intp)
    size = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    stride = np.where(size >= COARSE_FROM_PX, 32, 8)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    corner = grid[:, :2] * grid[:, 2:]
    offset = np.abs(corner[:, None] - centre[None])
    near = offset.max(axis=2) <= RADIUS_CELLS * grid[:, 2:]
    inside = (offset <= (boxes[None, :, 2:] - boxes[None, :, :2]) / 2).all(axis=2)
    fits = near & inside & (grid[:, 2:] == stride[None])
    distance = np.where(fits, offset.max(axis=2) / size[None], np.inf)
    nearest = distance.argmin(axis=1)
    return np.where(fits.any(axis=1), nearest, -1)


def seen_by(
    teacher: NDArray[np.float32], boxes: NDArray[np.float32], grid: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Which of the teacher's cells have which face's box.

    Args:
        teacher: its maps, shape (A, 15).
    Returns:
        The C cells that score `LEAST_SCORE` or more; and the score of each for each face, shape (C, F), 0 where the
        boxes overlap by less than `FOUND_OVERLAP`.
    """
    cells = np.flatnonzero(teacher[:, 0] >= LEAST_SCORE)
    shared = overlaps(decode_boxes(teacher[cells, 1:5], grid[cells]), boxes)
    return cells, np.where(shared >= FOUND_OVERLAP, teacher[cells, :1], np.float32(0))


def targets(
    teacher: NDArray[np.float32],
    boxes: NDArray[np.float32],
    landmarks: NDArray[np.float32],
    grid: NDArray[np.float32],
    objective: DetectionObjective,
) -> NDArray[np.float32]:
    """What the student learns from one picture, float32, shape (A, 15): the score it should give, box, landmarks.

    Args:
        teacher: its maps of the same picture.
        boxes, landmarks: of the exact faces.
    """
    if teacher.shape != (len(grid), NUMBERS):
        raise ValueError(f"teacher: expected maps of shape {(len(grid), NUMBERS)}, got {teacher.shape}")
    result = teacher.copy()
    cells, scores = seen_by(teacher, boxes, grid)
    best = scores.max(axis=0, initial=0)
    gone = best < objective.missed_below
    # In proportion, so that the cell that answers best goes on doing so: its landmarks are the teacher's.
    factor = np.where(gone, 1.0, np.maximum(1.0, objective.raised_score / np.maximum(best, LEAST_SCORE)))
    result[cells, 0] = np.maximum(result[cells, 0], (scores * factor).max(axis=1, initial=0))
    answers = assign(boxes[gone], grid)
    cells = np.flatnonzero(answers >= 0)
    faces = np.flatnonzero(gone)[answers[cells]]
    result[cells, 0] = np.maximum(result[cells, 0], objective.exact_score)
    result[cells, 1:] = encode(boxes[faces], landmarks[faces], grid[cells])
    return result
