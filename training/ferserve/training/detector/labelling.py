"""Photos with what the teacher finds in them when it looks closely."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.detectors.decoding import Candidates
from ferserve.faces.detectors.onnx import MAX_OVERLAP
from ferserve.faces.types import Image
from ferserve.training.data.expw_scenes import Photo
from ferserve.training.detector.teacher import Teacher

FACE_SCORE = 0.6
HINT_SCORE = 0.1
SCALES = (0.5, 1.0, 1.5)
"""The teacher's sizes are limited: faces that fill the picture it sees smaller, tiny ones larger."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledPhoto:
    """One photo in memory.

    Attributes:
        image: RGB uint8.
        boxes, landmarks: the faces, float32, shapes (F, 4) and (F, 5, 2).
        avoid: boxes of everything that may be a face: hints at any scale and the photo's own labels, shape (N, 4).
    """

    image: Image
    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    avoid: NDArray[np.float32]


def label_photo(photo: Photo, teacher: Teacher, *, scales: Sequence[float] = SCALES) -> LabelledPhoto:
    """Look at a photo at several scales; a face is what the teacher is sure of at one of them."""
    image = photo.read()
    hints = Candidates.joined([teacher.faces(image, min_score=HINT_SCORE, scale=scale) for scale in scales])
    faces = hints.chosen(hints.scores >= FACE_SCORE).suppressed(max_overlap=MAX_OVERLAP)
    avoid = np.concatenate((hints.boxes, photo.labelled))
    return LabelledPhoto(image=image, boxes=faces.boxes, landmarks=faces.landmarks, avoid=avoid)


def label_photos(photos: Iterable[Photo], teacher: Teacher, *, workers: int) -> list[LabelledPhoto]:
    """`label_photo` for each, on so many threads."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda photo: label_photo(photo, teacher), photos))


def is_empty(image: Image, teacher: Teacher) -> bool:
    """Whether the teacher finds nothing at all, not even a hint, at the picture's own size."""
    return len(teacher.faces(image, min_score=HINT_SCORE)) == 0
