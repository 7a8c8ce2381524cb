"""Five landmarks of faces that are crops already, where the detector finds them, else where FER-2013 has them.

Shapes: N faces, S the crop's side, C channels.
"""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ferserve.faces.detectors import Detector
from ferserve.faces.types import Detection, Landmarks
from ferserve.training.inside.regions import frame_area

ENLARGE: Final = 3
"""48 px fill the picture; the detector finds 95 of 100 of FER-2013's faces at three times their size."""
USUAL: Final = ((0.28, 0.38), (0.69, 0.38), (0.48, 0.59), (0.32, 0.77), (0.65, 0.77))
"""Medians of what it finds on FER-2013's PublicTest, as fractions of the side."""
MIN_AREA: Final = 0.05
"""Of the face's frame, as a share of the crop's; FER-2013's median has 0.15. Below it a far face, or none."""


def find_landmarks(
    crops_NSSC: NDArray[np.uint8], detector: Detector, *, on_face: Callable[[], None] = lambda: None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Landmarks of every crop.

    Args:
        crops_NSSC: uint8, grey or RGB.
        on_face: called after each, to show progress.
    Returns:
        Pixels of the crops, shape (N, 5, 2), and whether they were found, shape (N,); the others are `USUAL`.
    """
    side_px = crops_NSSC.shape[1]
    usual = np.asarray(USUAL, np.float32) * side_px
    points, found = [], []
    for crop in crops_NSSC:
        size_px = ENLARGE * side_px
        large = cv2.resize(np.repeat(crop, 3 // crop.shape[2], axis=2), (size_px, size_px))
        seen = _largest(detector.detect(np.ascontiguousarray(large, dtype=np.uint8)), side_px)
        found.append(seen is not None)
        points.append(usual if seen is None else seen)
        on_face()
    return np.stack(points), np.asarray(found, np.bool_)


def _largest(detections: list[Detection], side_px: int) -> Landmarks | None:
    """Landmarks of the largest face in pixels of the crop, if they are a face's that fills it."""
    with_points = [face for face in detections if face.landmarks is not None]
    if not with_points:
        return None
    largest = max(with_points, key=lambda face: face.box.width_px * face.box.height_px)
    assert largest.landmarks is not None
    points = (largest.landmarks / ENLARGE).astype(np.float32)
    return points if frame_area(points[None])[0] >= MIN_AREA * side_px**2 else None
