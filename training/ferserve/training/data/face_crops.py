"""Pictures of the catalog as crops: as they are where a set holds faces, by a detector where it holds whole pictures.

Shapes: N pictures, S the crop's side, C channels.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.detectors import Detector
from ferserve.faces.errors import DegenerateFaceError
from ferserve.faces.preprocess import PreprocessSpec, face_crop, whole_crop
from ferserve.faces.types import Crop, Image
from ferserve.training.data.sets import Pictures


def crop_pictures(
    pictures: Pictures,
    spec: PreprocessSpec,
    detector: Detector | None,
    *,
    on_picture: Callable[[], None] = lambda: None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Cut the largest face out of every picture.

    Args:
        detector: None takes every picture whole.
        on_picture: called after each, to show progress.
    Returns:
        Crops, uint8, shape (N, S, S, C), and whether a face was found, shape (N,); a picture without one is taken
        whole, so that it counts and is not left out.
    Raises:
        DataError: a picture cannot be decoded.
    """
    crops, found = [], []
    for row in range(len(pictures)):
        image = pictures.read(row)
        crop = None if detector is None else _largest_face(image, detector, spec)
        found.append(detector is None or crop is not None)
        crops.append(whole_crop(image, spec) if crop is None else crop)
        on_picture()
    return np.stack(crops), np.asarray(found, np.bool_)


def _largest_face(image: Image, detector: Detector, spec: PreprocessSpec) -> Crop | None:
    detections = sorted(detector.detect(image), key=lambda face: face.box.width_px * face.box.height_px)
    try:
        return face_crop(image, detections[-1], spec) if detections else None
    except DegenerateFaceError:
        return None
