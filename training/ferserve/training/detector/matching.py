"""Detections against reference faces: who was found, what was found beside them, how far the landmarks are off."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.types import Detection
from ferserve.training.detector.geometry import overlaps

MIN_OVERLAP: Final = 0.5
SIZES_PX: Final = (0.0, 20.0, 40.0, 80.0, 160.0)
"""Where classes of face size begin: the longer side of the reference box in pixels of the photo."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Match:
    """One picture.

    Attributes:
        pairs: (detection, reference) of each face found, shape (M, 2); one to one.
        sizes_px: longer side of every reference box, shape (F,).
        unmatched: detections that are nobody's.
        landmark_errors: of each pair with landmarks on both sides, as a share of the reference's eye distance.
    """

    pairs: NDArray[np.intp]
    sizes_px: NDArray[np.float32]
    unmatched: int
    landmark_errors: NDArray[np.float32]


def box_rows(detections: Sequence[Detection]) -> NDArray[np.float32]:
    """Boxes x0, y0, x1, y1, float32, shape (N, 4)."""
    rows = [(d.box.x0, d.box.y0, d.box.x1, d.box.y1) for d in detections]
    return np.asarray(rows, dtype=np.float32).reshape(-1, 4)


def match(
    detections: Sequence[Detection], reference: NDArray[np.float32], landmarks: NDArray[np.float32] | None = None
) -> Match:
    """Pair detections, the best score first, with the reference box that each overlaps most and nobody has yet.

    Args:
        reference: boxes in the same pixels, shape (F, 4).
        landmarks: of the same faces, shape (F, 5, 2).
    """
    ordered = sorted(detections, key=lambda detection: detection.score, reverse=True)
    shared = overlaps(box_rows(ordered), reference)
    free = np.ones(len(reference), dtype=np.bool_)
    pairs = []
    for index, row in enumerate(shared):
        candidates = np.where(free, row, -1.0)
        best = int(candidates.argmax()) if len(candidates) else -1
        if best >= 0 and candidates[best] >= MIN_OVERLAP:
            free[best] = False
            pairs.append((index, best))
    found = np.asarray(pairs, dtype=np.intp).reshape(-1, 2)
    errors = [] if landmarks is None else [_error(ordered[index], landmarks[best]) for index, best in pairs]
    return Match(
        pairs=found,
        sizes_px=(reference[:, 2:] - reference[:, :2]).max(axis=1, initial=0),
        unmatched=len(ordered) - len(found),
        landmark_errors=np.asarray([error for error in errors if error is not None], dtype=np.float32),
    )


def _error(detection: Detection, truth: NDArray[np.float32]) -> float | None:
    """Mean distance of the five points over the distance of the eyes.

    Returns:
        None where there is nothing to compare, or the face is turned so far that its eyes coincide.
    """
    eyes = float(np.linalg.norm(truth[0] - truth[1]))
    if detection.landmarks is None or eyes < 1.0:
        return None
    return float(np.linalg.norm(detection.landmarks - truth, axis=1).mean()) / eyes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Matches of several pictures together.

    Attributes:
        faces, found: reference faces, and those of them that were found.
        recall: their ratio; 0 without faces.
        unmatched_per_photo: detections that are nobody's.
        by_size: (faces, found) of each class of `SIZES_PX`.
        landmark_error, landmark_error_median: over all pairs; None without landmarks.
    """

    faces: int
    found: int
    recall: float
    unmatched_per_photo: float
    by_size: tuple[tuple[int, int], ...]
    landmark_error: float | None
    landmark_error_median: float | None


def summarise(matches: Sequence[Match]) -> Rates:
    """Add matches up.

    Args:
        matches: of at least one picture.
    """
    classes = np.zeros((len(SIZES_PX), 2), dtype=np.int64)
    for one in matches:
        bins = np.digitize(one.sizes_px, SIZES_PX) - 1
        np.add.at(classes[:, 0], bins, 1)
        np.add.at(classes[:, 1], bins[one.pairs[:, 1]], 1)
    faces, found = classes.sum(axis=0).tolist()
    errors = np.concatenate([one.landmark_errors for one in matches])
    return Rates(
        faces=faces,
        found=found,
        recall=found / max(1, faces),
        unmatched_per_photo=sum(one.unmatched for one in matches) / len(matches),
        by_size=tuple((int(total), int(hits)) for total, hits in classes),
        landmark_error=float(errors.mean()) if len(errors) else None,
        landmark_error_median=float(np.median(errors)) if len(errors) else None,
    )
