"""Faces of pictures that a user names, as a net takes them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.detectors import Detector
from ferserve.faces.preprocess import PreprocessSpec, face_crop, whole_crop
from ferserve.training.data.errors import DataError
from ferserve.training.data.pictures import read_image
from ferserve.training.inside.landmarks import find_landmarks
from ferserve.training.inside.regions import Region, cover, region_masks


def read_faces(paths: Sequence[Path], spec: PreprocessSpec, detector: Detector | None) -> NDArray[np.uint8]:
    """The largest face of each picture, or the whole picture where there is no detector.

    Returns:
        Crops, uint8, shape (N, S, S, C).
    Raises:
        DataError: a picture cannot be read, or no face is found in it; the message names it.
        DegenerateFaceError: a face that cannot be cut out.
    """
    crops = []
    for path in paths:
        image = read_image(path)
        if detector is None:
            crops.append(whole_crop(image, spec))
            continue
        faces = detector.detect(image)
        if not faces:
            raise DataError(f"{path}: expected a picture with a face, found none; --whole takes the picture as a face")
        largest = max(faces, key=lambda face: face.box.width_px * face.box.height_px)
        crops.append(face_crop(image, largest, spec))
    return np.stack(crops)


def cover_part(crops_NSSC: NDArray[np.uint8], part: str, detector: Detector) -> NDArray[np.uint8]:
    """The same faces with a part of `Region` black.

    Raises:
        DataError: no such part; the message lists them.
    """
    if part not in set(Region):
        raise DataError(f"--cover: expected one of {', '.join(Region)}, got {part!r}")
    landmarks, _ = find_landmarks(crops_NSSC, detector)
    return cover(crops_NSSC, region_masks(landmarks, Region(part), size_px=crops_NSSC.shape[1]))
